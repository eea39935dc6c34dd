//! A frame as people see it, and which of its parts count at a granularity.
//!
//! Go's pprof is the reference for reports: at function granularity frames are the same when their names are, code
//! without a name is its binary, and a source path is cleaned before it is compared. Flame graphs keep more apart:
//! the file belongs to a function, and an address without a name stays an address.

use std::borrow::Cow;
use std::sync::Arc;

use cambium_model::symbols::{Line, Location};

use crate::fold::Granularity;

/// What stands for dropped nodes.
pub const OTHER_NAME: &str = "other";
/// What stands for all stacks together.
pub const ROOT_NAME: &str = "total";
/// Code of which nothing is known, in Go pprof's words.
const UNKNOWN: &str = "<unknown>";
/// Where Bazel runs compilers.
const BUILD_SANDBOX: &str = "/proc/self/cwd/";

/// Which parts of a frame tell it from another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum View {
    /// Flame graphs.
    Graph,
    /// `top` and everything else that Go's pprof prints.
    Report,
}

/// One function call, or an address that stands for it. Parts that do not count are empty or 0.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Frame {
    /// The function; empty where it is unknown.
    pub name: Arc<str>,
    /// Its source file.
    pub file: Arc<str>,
    /// The source line.
    pub line: i64,
    /// The source column.
    pub column: i64,
    /// Address in the object's file.
    pub address: u64,
    /// The object's file, only where the function has no name.
    pub object: Arc<str>,
    /// The function's first line, only where it has no name: it tells such functions of one object apart.
    pub start_line: i64,
}

impl Frame {
    /// The frame that stands for something else than a function.
    pub(super) fn synthetic(name: &str) -> Self {
        Self { name: name.into(), ..Self::default() }
    }

    /// What counts of one line of a location, or of a location without lines.
    pub(super) fn new(
        location: &Location,
        line: Option<&Line>,
        granularity: Granularity,
        view: View,
    ) -> Self {
        let with_lines = granularity != Granularity::Function;
        let mut frame = Self::default();
        if let Some(line) = line {
            frame.name = Arc::clone(&line.function.name);
            if with_lines || view == View::Graph {
                frame.file = clean_path(&line.function.file);
            }
            if with_lines {
                frame.line = line.line;
            }
            if granularity == Granularity::Address {
                frame.column = line.column;
            }
        }
        let unnamed = frame.name.is_empty();
        if unnamed {
            frame.object = Arc::clone(&location.mapping.file);
            frame.start_line = line.map_or(0, |line| line.function.start_line);
        }
        if granularity == Granularity::Address || (unnamed && view == View::Graph) {
            frame.address = location.address;
        }
        frame
    }

    /// The function's name; empty where only its file or line is known, `[binary]` or `<unknown>` where not even that.
    pub fn function(&self) -> Cow<'_, str> {
        if !self.name.is_empty() || !self.file.is_empty() || self.line != 0 {
            return Cow::Borrowed(&self.name);
        }
        match base_name(&self.object) {
            "" => Cow::Borrowed(UNKNOWN),
            binary => Cow::Owned(format!("[{binary}]")),
        }
    }

    /// The short text of a flame graph's box: `main.run`, `0x47ab30 main.run`, `libc.so.6 0x47ab30`.
    pub fn title(&self) -> Cow<'_, str> {
        match (&*self.name, base_name(&self.object), self.address) {
            ("", "", 0) => Cow::Borrowed(UNKNOWN),
            ("", "", address) => Cow::Owned(format!("{address:#x}")),
            ("", binary, 0) => Cow::Owned(format!("[{binary}]")),
            ("", binary, address) => Cow::Owned(format!("{binary} {address:#x}")),
            (name, _, 0) => Cow::Borrowed(name),
            (name, _, address) => Cow::Owned(format!("{address:#x} {name}")),
        }
    }

    /// Everything that counts, as Go's pprof prints it: `000000000047ab30 main.run main.go:12`.
    pub fn printed(&self) -> String {
        let address = (self.address != 0).then(|| format!("{:016x}", self.address));
        let place = match (self.line, self.column) {
            (0, _) => self.file.to_string(),
            (line, 0) => format!("{}:{line}", self.file),
            (line, column) => format!("{}:{line}:{column}", self.file),
        };
        let parts = [address.as_deref().unwrap_or_default(), &self.function(), &place];
        parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" ")
    }
}

/// The last part of a path, by the rules of Go's `filepath.Base`; empty for an empty path.
fn base_name(path: &str) -> &str {
    let trimmed = path.trim_end_matches('/');
    if trimmed.is_empty() {
        &path[..path.len().min(1)]
    } else {
        trimmed.rsplit('/').next().unwrap_or(trimmed)
    }
}

/// The shortest path that means the same, by the rules of Go's `filepath.Clean`, without the sandbox's folder that Go's
/// pprof cuts off. The path itself where there is nothing to do, which is nearly always.
fn clean_path(path: &Arc<str>) -> Arc<str> {
    let inside = path.strip_prefix(BUILD_SANDBOX).unwrap_or(path);
    let parts = || inside.split('/');
    let dirty = parts().skip(1).any(str::is_empty) || parts().any(|part| part == "." || part == "..");
    if !dirty && inside.len() == path.len() {
        return Arc::clone(path);
    }
    let rooted = inside.starts_with('/');
    let mut clean: Vec<&str> = Vec::new();
    for part in parts() {
        match part {
            "" | "." => {}
            ".." if clean.last().is_some_and(|last| *last != "..") => {
                clean.pop();
            }
            ".." if rooted => {}
            other => clean.push(other),
        }
    }
    let joined = clean.join("/");
    match (rooted, joined.is_empty()) {
        (true, _) => format!("/{joined}").into(),
        (false, true) if inside.is_empty() => "".into(),
        (false, true) => ".".into(),
        (false, false) => joined.into(),
    }
}

#[cfg(test)]
mod tests {
    use cambium_model::symbols::{Function, Mapping};

    use super::*;

    #[test]
    fn paths_are_cleaned_as_go_does() {
        let cases = [
            ("", ""),
            ("main.go", "main.go"),
            ("/src/main.go", "/src/main.go"),
            ("/src//a/./b/../main.go", "/src/a/main.go"),
            ("./main.go", "main.go"),
            ("../main.go", "../main.go"),
            ("a/../../main.go", "../main.go"),
            ("/../main.go", "/main.go"),
            ("a/..", "."),
            ("src/", "src"),
            ("/", "/"),
            ("/proc/self/cwd/pkg/main.go", "pkg/main.go"),
            ("/proc/self/cwd/./pkg//main.go", "pkg/main.go"),
        ];
        for (path, expected) in cases {
            assert_eq!(&*clean_path(&path.into()), expected, "{path:?}");
        }
    }

    fn check(frame: &Frame, function: &str, title: &str, printed: &str) {
        assert_eq!(frame.function(), function, "{frame:?}");
        assert_eq!(frame.title(), title, "{frame:?}");
        assert_eq!(frame.printed(), printed, "{frame:?}");
    }

    #[test]
    fn each_granularity_shows_its_parts() {
        let line = Line {
            function: Function {
                name: "main.run".into(),
                system_name: "main.run".into(),
                file: "/src/./main.go".into(),
                start_line: 10,
            },
            line: 12,
            column: 3,
        };
        let mapping = Mapping { file: "/usr/lib/libx.so.6".into(), build_id: "ab".into() };
        let location = Location { mapping, address: 0x47ab30, lines: vec![line.clone()] };
        let named = |granularity, view| Frame::new(&location, Some(&line), granularity, view);
        let bare = |granularity, view| Frame::new(&location, None, granularity, view);
        use {Granularity as G, View as V};
        check(&named(G::Function, V::Report), "main.run", "main.run", "main.run");
        check(&named(G::Function, V::Graph), "main.run", "main.run", "main.run /src/main.go");
        check(&named(G::Line, V::Report), "main.run", "main.run", "main.run /src/main.go:12");
        check(
            &named(G::Address, V::Report),
            "main.run",
            "0x47ab30 main.run",
            "000000000047ab30 main.run /src/main.go:12:3",
        );
        check(&bare(G::Function, V::Report), "[libx.so.6]", "[libx.so.6]", "[libx.so.6]");
        check(
            &bare(G::Function, V::Graph),
            "[libx.so.6]",
            "libx.so.6 0x47ab30",
            "000000000047ab30 [libx.so.6]",
        );
        check(&bare(G::Line, V::Report), "[libx.so.6]", "[libx.so.6]", "[libx.so.6]");
        check(
            &bare(G::Address, V::Report),
            "[libx.so.6]",
            "libx.so.6 0x47ab30",
            "000000000047ab30 [libx.so.6]",
        );
    }

    #[test]
    fn nothing_known_is_said_so() {
        let location = Location { address: 0x10, ..Location::default() };
        let frame = Frame::new(&location, None, Granularity::Function, View::Report);
        check(&frame, "<unknown>", "<unknown>", "<unknown>");
        let frame = Frame::new(&location, None, Granularity::Function, View::Graph);
        check(&frame, "<unknown>", "0x10", "0000000000000010 <unknown>");
    }

    #[test]
    fn a_function_without_a_name_is_its_binary_or_its_place() {
        let function = Function { file: "nameless.c".into(), start_line: 7, ..Function::default() };
        let line = Line { function, line: 50, column: 0 };
        let mapping = Mapping { file: "/bin/edge (deleted)".into(), build_id: "".into() };
        let location = Location { mapping, address: 0x10, lines: vec![line.clone()] };
        let frame = |granularity| Frame::new(&location, Some(&line), granularity, View::Report);
        let binary = "[edge (deleted)]";
        check(&frame(Granularity::Function), binary, binary, binary);
        assert_eq!(frame(Granularity::Function).start_line, 7, "tells it from other ones of the binary");
        check(&frame(Granularity::Line), "", binary, "nameless.c:50");
    }

    #[test]
    fn base_names_are_go_s() {
        for (path, base) in [
            ("", ""),
            ("/", "/"),
            ("/a/b", "b"),
            ("a/b//", "b"),
            ("[kernel.kallsyms]_stext", "[kernel.kallsyms]_stext"),
        ] {
            assert_eq!(base_name(path), base, "{path:?}");
        }
    }
}
