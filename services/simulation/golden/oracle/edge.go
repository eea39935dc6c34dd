package main

import (
	"path/filepath"

	"github.com/google/pprof/profile"
)

// writeEdges writes the profiles no well-behaved recorder makes but every reader must survive.
func writeEdges(folder string) error {
	for name, p := range map[string]*profile.Profile{
		"edge-empty":          edgeEmpty(),
		"edge-no-mappings":    edgeNoMappings(),
		"edge-no-locations":   edgeNoLocations(),
		"edge-drop-frames":    edgeDropFrames(),
		"edge-numeric-labels": edgeNumericLabels(),
		"edge-mappings":       edgeMappings(),
		"edge-names":          edgeNames(),
	} {
		if err := write(p, filepath.Join(folder, name+".pb.gz")); err != nil {
			return err
		}
	}
	return nil
}

// draft builds a profile by naming things; ids are given out in order.
type draft struct{ *profile.Profile }

// newDraft starts a profile of the kind Go's CPU profiler writes, at a fixed time.
func newDraft() draft {
	return draft{&profile.Profile{
		SampleType:    []*profile.ValueType{{Type: "samples", Unit: "count"}, {Type: "cpu", Unit: "nanoseconds"}},
		PeriodType:    &profile.ValueType{Type: "cpu", Unit: "nanoseconds"},
		Period:        10_000_000,
		TimeNanos:     1_700_000_000_000_000_000,
		DurationNanos: 10_000_000_000,
	}}
}

func (d draft) mapping(start, limit, offset uint64, file, buildID string) *profile.Mapping {
	m := &profile.Mapping{ID: uint64(len(d.Mapping) + 1), Start: start, Limit: limit, Offset: offset, File: file, BuildID: buildID}
	d.Profile.Mapping = append(d.Profile.Mapping, m)
	return m
}

// function's system name is its name unless the test says otherwise afterwards.
func (d draft) function(name, file string, startLine int64) *profile.Function {
	f := &profile.Function{ID: uint64(len(d.Function) + 1), Name: name, SystemName: name, Filename: file, StartLine: startLine}
	d.Profile.Function = append(d.Profile.Function, f)
	return f
}

// location's lines are given innermost (inlined) first, as in the format.
func (d draft) location(m *profile.Mapping, address uint64, lines ...profile.Line) *profile.Location {
	l := &profile.Location{ID: uint64(len(d.Location) + 1), Mapping: m, Address: address, Line: lines}
	d.Profile.Location = append(d.Profile.Location, l)
	return l
}

// sample's stack is given leaf first, as in the format; its CPU time is one period per count.
func (d draft) sample(count int64, stack ...*profile.Location) *profile.Sample {
	s := &profile.Sample{Location: stack, Value: []int64{count, count * d.Period}}
	d.Profile.Sample = append(d.Profile.Sample, s)
	return s
}

func at(f *profile.Function, line int64) profile.Line { return profile.Line{Function: f, Line: line} }

func edgeEmpty() *profile.Profile { return newDraft().Profile }

// edgeNoMappings has no mapping at all: named locations, bare addresses, and a location that is nothing but an id.
func edgeNoMappings() *profile.Profile {
	d := newDraft()
	root := d.location(nil, 0x1000, at(d.function("root", "root.go", 1), 10))
	leaf := d.location(nil, 0x2000, at(d.function("leaf", "leaf.go", 1), 20))
	bare, other, nothing := d.location(nil, 0x3000), d.location(nil, 0x3008), d.location(nil, 0)
	d.sample(3, leaf, root)
	d.sample(5, bare, root)
	d.sample(7, other, bare, root)
	d.sample(11, nothing, root)
	return d.Profile
}

// edgeNoLocations mixes samples without a stack, with zero values in some types and with zeros only.
func edgeNoLocations() *profile.Profile {
	d := newDraft()
	m := d.mapping(0x400000, 0x500000, 0, "/src/demo/bin/edge", "")
	root := d.location(m, 0x401000, at(d.function("root", "root.go", 1), 10))
	leaf := d.location(m, 0x402000, at(d.function("leaf", "leaf.go", 1), 20))
	idle := d.location(m, 0x403000, at(d.function("idle", "idle.go", 1), 30))
	d.sample(4, leaf, root)
	d.sample(6)
	d.sample(1, root).Value = []int64{1, 0}
	d.sample(1, idle, root).Value = []int64{0, 0}
	d.sample(1, idle, root).Value = []int64{0, 30_000_000}
	d.sample(2, leaf, root)
	return d.Profile
}

// edgeDropFrames is pruned on reading: what matches drop_frames and not keep_frames goes, with all it called.
func edgeDropFrames() *profile.Profile {
	d := newDraft()
	d.DropFrames = `alloc.*|signal_handler|ns::drop`
	d.KeepFrames = `alloc_keep`
	m := d.mapping(0x400000, 0x500000, 0, "/src/demo/bin/edge", "")
	main := d.function("main", "main.c", 1)
	work := d.function("work", "work.c", 1)
	alloc := d.function("alloc_slow", "alloc.c", 1)
	keep := d.function("alloc_keep", "alloc.c", 50)
	inner := d.function("inner", "alloc.c", 80)
	dropWithArguments := d.function("ns::drop(int, char)", "ns.cc", 5)
	handler := d.function("signal_handler", "signal.c", 9)
	mainAt := d.location(m, 0x401000, at(main, 11))
	workAt := d.location(m, 0x402000, at(work, 22))
	allocAt := d.location(m, 0x403000, at(alloc, 33))
	keepAt := d.location(m, 0x404000, at(keep, 55))
	innerAt := d.location(m, 0x405000, at(inner, 88))
	// One address, three functions: inner is inlined into alloc_slow, which is inlined into work.
	inlinedAt := d.location(m, 0x402100, at(inner, 89), at(alloc, 34), at(work, 23))
	// alloc_slow is the outermost of the chain, so the whole location goes.
	outermostAt := d.location(m, 0x403100, at(inner, 90), at(alloc, 35))
	argumentsAt := d.location(m, 0x406000, at(dropWithArguments, 7))
	handlerAt := d.location(m, 0x407000, at(handler, 10))
	d.sample(1, innerAt, allocAt, workAt, mainAt)     // becomes work, main
	d.sample(2, innerAt, inlinedAt, mainAt)           // becomes work:23, main
	d.sample(3, innerAt, outermostAt, workAt, mainAt) // becomes work, main
	d.sample(4, innerAt, keepAt, workAt, mainAt)      // kept whole
	d.sample(5, argumentsAt, workAt, mainAt)          // matched without its argument list
	d.sample(6, innerAt, handlerAt)                   // no frame of the user before the match: kept
	d.sample(7, workAt, mainAt, handlerAt)            // the match is at the root: kept
	d.sample(8, workAt, allocAt, mainAt, handlerAt)   // the second match counts
	d.sample(9, inlinedAt)                            // the inlined lines go even without a user frame before
	return d.Profile
}

// edgeNumericLabels has equal stacks that differ in labels only, several values of one key, and odd units.
func edgeNumericLabels() *profile.Profile {
	d := newDraft()
	m := d.mapping(0x400000, 0x500000, 0, "/src/demo/bin/edge", "0123456789abcdef")
	root := d.location(m, 0x401000, at(d.function("root", "root.go", 1), 10))
	leaf := d.location(m, 0x402000, at(d.function("leaf", "leaf.go", 1), 20))
	label := func(count int64, text map[string][]string, numbers map[string][]int64, units map[string][]string) {
		s := d.sample(count, leaf, root)
		s.Label, s.NumLabel, s.NumUnit = text, numbers, units
	}
	label(1, nil, nil, nil)
	label(2, nil, map[string][]int64{"bytes": {512}}, nil)
	label(3, nil, map[string][]int64{"bytes": {512}}, map[string][]string{"bytes": {"kilobytes"}})
	label(4, nil, map[string][]int64{"bytes": {512, 1024}}, map[string][]string{"bytes": {"bytes", "bytes"}})
	label(5, nil, map[string][]int64{"latency": {-7}}, map[string][]string{"latency": {"milliseconds"}})
	label(6, map[string][]string{"id": {"a"}}, map[string][]int64{"id": {9}}, nil)
	label(7, map[string][]string{"id": {"a", "b"}}, nil, nil)
	label(8, map[string][]string{"id": {"a", "b"}}, nil, nil)
	label(9, nil, map[string][]int64{"bytes": {0}}, map[string][]string{"bytes": {"bytes"}})
	return d.Profile
}

// edgeMappings has one binary in two segments, twins of one base name, and addresses outside their mapping.
func edgeMappings() *profile.Profile {
	d := newDraft()
	text := d.mapping(0x55d000001000, 0x55d000101000, 0x1000, "/src/demo/bin/edge", "aaaa1111")
	data := d.mapping(0x55d000301000, 0x55d000401000, 0x300000, "/src/demo/bin/edge", "aaaa1111")
	first := d.mapping(0x7f0000000000, 0x7f0000100000, 0x26000, "/usr/lib/libtwin.so", "bbbb2222")
	second := d.mapping(0x7f0000200000, 0x7f0000300000, 0x26000, "/opt/lib/libtwin.so", "cccc3333")
	anonymous := d.mapping(0x7f1000000000, 0x7f1000001000, 0, "", "")
	kernel := d.mapping(0xffffffff81000000, 0, 0, "[kernel.kallsyms]_stext", "")
	main := d.function("main", "main.c", 1)
	twin := d.function("twin", "twin.c", 1)
	root := d.location(text, 0x55d000002000, at(main, 10))
	here := d.location(text, 0x55d000002345)
	there := d.location(data, 0x55d000301345)
	firstBare, secondBare := d.location(first, 0x7f0000000111), d.location(second, 0x7f0000200111)
	firstNamed, secondNamed := d.location(first, 0x7f0000000222, at(twin, 5)), d.location(second, 0x7f0000200222, at(twin, 5))
	jit := d.location(anonymous, 0x7f1000000010)
	outside := d.location(text, 0x42)
	syscall := d.location(kernel, 0xffffffff81000100)
	d.sample(1, here, root)
	d.sample(2, there, here, root)
	d.sample(3, firstBare, root)
	d.sample(4, secondBare, firstBare, root)
	d.sample(5, firstNamed, root)
	d.sample(6, secondNamed, firstNamed, root)
	d.sample(7, jit, root)
	d.sample(8, outside, root)
	d.sample(9, syscall, here, here, root)
	return d.Profile
}

// edgeNames has names that trip parsers, equal names of different things, columns, and ids in no order.
func edgeNames() *profile.Profile {
	d := newDraft()
	d.SampleType = append(d.SampleType, &profile.ValueType{Type: "things"}, &profile.ValueType{Type: "objects", Unit: "objects"})
	d.DefaultSampleType = "things"
	d.Comments = []string{"first comment", "#hidden comment"}
	d.DocURL = "https://example.com/doc"
	m := d.mapping(0x400000, 0x500000, 0, "/src/demo/bin/edge with space (deleted)", "")
	address := uint64(0x401000)
	place := func(f *profile.Function, line, column int64) *profile.Location {
		address += 0x10
		return d.location(m, address, profile.Line{Function: f, Line: line, Column: column})
	}
	root := place(d.function("main", "main.cc", 1), 10, 0)
	stacks := []*profile.Location{
		place(d.function("std::vector<int, std::allocator<int> >::push_back(int const&)", "vector.h", 1), 20, 0),
		place(d.function("<alloc::vec::Vec<T> as core::fmt::Debug>::fmt", "/src/demo/vec.rs", 1), 30, 7),
		place(d.function("<alloc::vec::Vec<T> as core::fmt::Debug>::fmt", "/src/demo/vec.rs", 1), 30, 9),
		place(d.function("名前 (inline)", "naïve file.js", 1), 40, 0),
		place(d.function("", "nameless.c", 3), 50, 0),
		place(d.function("", "", 4), 0, 0),
		place(d.function("", "", 5), 0, 0),
		place(d.function("no file", "", 1), 60, 0),
		place(d.function("no line", "no_line.c", 1), 0, 0),
		place(d.function("unclean", "./a//b/../c.c", 1), 70, 0),
		place(d.function("cwd", "/proc/self/cwd/pkg/cwd.c", 1), 80, 0),
		place(d.function("twice", "one.c", 1), 90, 0),
		place(d.function("twice", "two.c", 1), 90, 0),
		place(d.function("overload", "overload.cc", 1), 100, 0),
		place(d.function("overload", "overload.cc", 5), 100, 0),
	}
	d.Function[len(d.Function)-2].SystemName = "_Z8overloadi"
	d.Function[len(d.Function)-1].SystemName = "_Z8overloadc"
	for i, leaf := range stacks {
		s := d.sample(int64(i+1), leaf, root)
		s.Value = append(s.Value, int64(100*i+1), int64(1000*i+1))
	}
	// Recursion through an inlined chain: overload occurs three times in one stack, counted once.
	chain := d.location(m, 0x409000, at(d.Function[len(d.Function)-2], 101), at(d.Function[len(d.Function)-2], 102))
	s := d.sample(50, chain, chain, root)
	s.Value = append(s.Value, 0, 1<<40)
	// Different functions of equal name in one stack: one node at function granularity, counted once.
	s = d.sample(60, stacks[11], stacks[12], stacks[11], stacks[13], stacks[14], root)
	s.Value = append(s.Value, 7, 9)
	// The format lets ids be any non-zero numbers.
	for i, l := range d.Location {
		l.ID = 1_000_003 * uint64(len(d.Location)-i)
	}
	for i, f := range d.Function {
		f.ID = 0xfeed_0000_0000 + 7*uint64(i)
	}
	m.ID = 77
	return d.Profile
}
