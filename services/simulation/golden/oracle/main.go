// Command oracle does for the golden set what Go's pprof tool has no option for. Every number in an answer still
// comes from the tool; this program only prepares its input and describes the files.
//
//	oracle types <profile>          one line per sample type: index, TAB, type, TAB, unit
//	oracle rebase <profile> <out>   the same profile with file addresses in place of memory addresses
//	oracle buildids <profile> <out> the same profile with the build ids of the binaries its mappings name, read here
//	oracle describe <folder>        the table of the README, as Markdown
//	oracle edge <folder>            writes the hand-made edge-case profiles
package main

import (
	"fmt"
	"log"
	"os"

	"github.com/google/pprof/profile"
)

func main() {
	log.SetFlags(0)
	if err := run(os.Args[1:]); err != nil {
		log.Fatal("oracle: ", err)
	}
}

func run(args []string) error {
	switch {
	case len(args) == 2 && args[0] == "types":
		return types(args[1])
	case len(args) == 3 && args[0] == "rebase":
		return rebase(args[1], args[2])
	case len(args) == 3 && args[0] == "buildids":
		return buildIDs(args[1], args[2])
	case len(args) == 2 && args[0] == "describe":
		return describe(args[1])
	case len(args) == 2 && args[0] == "edge":
		return writeEdges(args[1])
	}
	return fmt.Errorf("want types|rebase|buildids|describe|edge and its operands, got %q", args)
}

func read(name string) (*profile.Profile, error) {
	file, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	p, err := profile.Parse(file)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return p, nil
}

func write(p *profile.Profile, name string) error {
	if err := p.CheckValid(); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	file, err := os.Create(name)
	if err != nil {
		return err
	}
	if err := p.Write(file); err != nil {
		file.Close()
		return fmt.Errorf("%s: %w", name, err)
	}
	return file.Close()
}

func types(name string) error {
	p, err := read(name)
	if err != nil {
		return err
	}
	for i, t := range p.SampleType {
		fmt.Printf("%d\t%s\t%s\n", i, t.Type, t.Unit)
	}
	return nil
}

// rebase replaces every address by its file address (address - mapping start + mapping offset) when it lies inside
// its mapping, and moves the mapping along, so that pprof's own -addresses report prints file addresses. An address
// outside its mapping, or without one, stays.
func rebase(from, to string) error {
	p, err := read(from)
	if err != nil {
		return err
	}
	for _, location := range p.Location {
		m := location.Mapping
		if m != nil && m.Start <= location.Address && (m.Limit == 0 || location.Address < m.Limit) {
			location.Address = location.Address - m.Start + m.Offset
		}
	}
	for _, m := range p.Mapping {
		if m.Limit != 0 {
			m.Limit = m.Limit - m.Start + m.Offset
		}
		m.Start = m.Offset
	}
	return write(p, to)
}
