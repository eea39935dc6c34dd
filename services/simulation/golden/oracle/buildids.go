package main

import (
	"bytes"
	"debug/elf"
	"encoding/hex"
)

// buildIDs completes a profile recorded on this machine by a sampler that knows no build ids (gperftools).
func buildIDs(from, to string) error {
	p, err := read(from)
	if err != nil {
		return err
	}
	for _, m := range p.Mapping {
		file, err := elf.Open(m.File)
		if err != nil {
			continue // [vdso] and the like have no file.
		}
		if section := file.Section(".note.gnu.build-id"); section != nil {
			note, err := section.Data()
			if err != nil {
				return err
			}
			// The note is three words (lengths and type), the name "GNU\x00", and the id.
			if at := bytes.Index(note, []byte("GNU\x00")); at >= 0 {
				m.BuildID = hex.EncodeToString(note[at+4:])
			}
		}
		file.Close()
	}
	return write(p, to)
}
