//! Which file an address of this process lies in, and where in it.
//!
//! An address means something to one process only: each start loads its files elsewhere. A [`Place`] means the same in
//! every process of the same executable.

use cambium_model::symbols::Mapping;

/// An address in a loaded file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Place {
    /// Position in [`Objects`].
    pub object: usize,
    /// Address in the file, as its symbols have it.
    pub address: u64,
}

/// The files that are loaded: the executable, then shared libraries.
#[derive(Debug)]
pub struct Objects {
    objects: Vec<Object>,
    segments: Vec<Segment>,
}

#[derive(Debug)]
struct Object {
    mapping: Mapping,
    /// What loading added to the addresses of the file.
    base: u64,
}

/// Addresses from `start` to before `end` are of this object.
#[derive(Debug)]
struct Segment {
    start: u64,
    end: u64,
    object: usize,
}

impl Objects {
    /// What this process has loaded when it is first asked.
    pub fn loaded() -> Self {
        let mut loaded = Self { objects: Vec::new(), segments: Vec::new() };
        // Not known on other systems; addresses then stay as they are.
        for segment in mappings::MAPPINGS.iter().flatten() {
            let base = segment.memory_start.wrapping_sub(segment.memory_offset) as u64;
            let build_id = segment.build_id.as_ref().map(ToString::to_string).unwrap_or_default();
            let file = segment.pathname.to_string_lossy();
            let mapping = Mapping { file: file.as_ref().into(), build_id: build_id.into() };
            if loaded.objects.last().is_none_or(|last| last.base != base || last.mapping != mapping) {
                loaded.objects.push(Object { mapping, base });
            }
            let object = loaded.objects.len() - 1;
            let (start, end) = (segment.memory_start as u64, segment.memory_end as u64);
            loaded.segments.push(Segment { start, end, object });
        }
        loaded
    }

    /// Where an address lies; none where no file is.
    pub fn place(&self, address: u64) -> Option<Place> {
        let segment = self.segments.iter().find(|segment| (segment.start..segment.end).contains(&address))?;
        let object = segment.object;
        Some(Place { object, address: address.wrapping_sub(self.objects[object].base) })
    }

    /// A stack of addresses as places. It ends before the first address that is in no file: code without frame
    /// pointers has led astray whoever followed them.
    pub fn places(&self, stack: &[u64]) -> Vec<Place> {
        stack.iter().map_while(|address| self.place(*address)).collect()
    }

    /// The file of this process.
    pub fn executable(&self) -> Option<&Mapping> {
        self.objects.first().map(|object| &object.mapping)
    }

    /// The file.
    pub fn mapping(&self, object: usize) -> &Mapping {
        &self.objects[object].mapping
    }

    /// What another process of the same executable knows the object by: its path, none for the executable itself.
    pub fn name(&self, object: usize) -> Option<&str> {
        (object > 0).then(|| &*self.objects[object].mapping.file)
    }

    /// What loading added to the addresses of the object of this name.
    pub fn base(&self, name: Option<&str>) -> Option<u64> {
        let found = match name {
            None => self.objects.first(),
            Some(path) => self.objects.iter().skip(1).find(|object| &*object.mapping.file == path),
        };
        found.map(|object| object.base)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_lie_in_the_executable_or_in_a_library() {
        let objects = Objects::loaded();
        let own = Objects::loaded as fn() -> Objects as usize as u64;
        let place = objects.place(own).unwrap();
        assert_eq!((place.object, objects.name(place.object)), (0, None));
        assert_eq!(objects.base(None).unwrap() + place.address, own);

        let foreign = libc::getpid as unsafe extern "C" fn() -> i32 as usize as u64;
        let place = objects.place(foreign).unwrap();
        let name = objects.name(place.object).unwrap();
        assert!(name.contains("libc"), "{name}");
        assert_eq!(objects.base(Some(name)).unwrap() + place.address, foreign);
        assert!(!objects.mapping(place.object).build_id.is_empty());

        assert_eq!(objects.place(16), None);
        assert_eq!(objects.places(&[own, 16, own]).len(), 1);
        assert_eq!(objects.base(Some("/no/such/library")), None);
    }
}
