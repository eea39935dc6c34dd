package main

import (
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strings"

	"github.com/google/pprof/profile"
)

// describe prints one Markdown table row per profile of the folder.
func describe(folder string) error {
	names, err := filepath.Glob(filepath.Join(folder, "*.pb.gz"))
	if err != nil {
		return err
	}
	fmt.Println("| file | sample types | period | samples | locations (unsymbolised; inlined) | functions | mappings (with build id) | labels: samples | bytes |")
	fmt.Println("|---|---|---|---|---|---|---|---|---|")
	for _, name := range names {
		p, err := read(name)
		if err != nil {
			return err
		}
		stat, err := os.Stat(name)
		if err != nil {
			return err
		}
		bare, inlined, built := 0, 0, 0
		for _, location := range p.Location {
			if len(location.Line) == 0 {
				bare++
			}
			if len(location.Line) > 1 {
				inlined++
			}
		}
		for _, mapping := range p.Mapping {
			if mapping.BuildID != "" {
				built++
			}
		}
		fmt.Printf("| %s | %s | %d %s | %d | %d (%d; %d) | %d | %d (%d) | %s | %d |\n",
			filepath.Base(name), valueTypes(p), p.Period, unit(p.PeriodType), len(p.Sample), len(p.Location), bare, inlined,
			len(p.Function), len(p.Mapping), built, labels(p), stat.Size())
	}
	return nil
}

func unit(t *profile.ValueType) string {
	if t == nil || t.Type == "" && t.Unit == "" {
		return "–"
	}
	return t.Type + "/" + t.Unit
}

func valueTypes(p *profile.Profile) string {
	all := make([]string, len(p.SampleType))
	for i, t := range p.SampleType {
		all[i] = unit(t)
	}
	return strings.Join(all, ", ")
}

// labels counts the samples that carry each label key.
func labels(p *profile.Profile) string {
	count := map[string]int{}
	for _, sample := range p.Sample {
		for key := range sample.Label {
			count[key]++
		}
		for key := range sample.NumLabel {
			count[key+" (numeric)"]++
		}
	}
	if len(count) == 0 {
		return "none"
	}
	keys := make([]string, 0, len(count))
	for key, n := range count {
		keys = append(keys, fmt.Sprintf("%s: %d", key, n))
	}
	sort.Strings(keys)
	return strings.Join(keys, ", ")
}
