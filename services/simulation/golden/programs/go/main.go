// Command shop is a small pretend web shop whose only purpose is to be profiled.
//
// It keeps a few kinds of work busy that make a profile interesting: recursion (walk), functions the compiler
// inlines (price, clamp), allocation that stays and allocation that goes, lock contention, channel waits, and
// profiler labels on some goroutines. `shop <kind> <file> [<file> ...]` records one profile kind and exits.
package main

import (
	"fmt"
	"log"
	"os"
	"runtime"
	"runtime/pprof"
	"sync"
	"time"
)

// window is how long each CPU profile runs.
const window = 2500 * time.Millisecond

func main() {
	log.SetFlags(0)
	if len(os.Args) < 3 {
		log.Fatal("usage: shop cpu|heap|heap-delta|allocs|goroutine|mutex|block|threadcreate <file>...")
	}
	runtime.SetMutexProfileFraction(1)
	runtime.SetBlockProfileRate(1)
	runtime.MemProfileRate = 8 << 10
	kind, files := os.Args[1], os.Args[2:]
	switch kind {
	case "cpu":
		// Every further file is the next window of the same process: CPU profiles are deltas by nature.
		stop := open()
		for _, file := range files {
			record(file, func(out *os.File) error {
				if err := pprof.StartCPUProfile(out); err != nil {
					return err
				}
				time.Sleep(window)
				pprof.StopCPUProfile()
				return nil
			})
		}
		stop()
	case "heap-delta":
		record(files[0], heapDelta)
	default:
		stop := open()
		time.Sleep(time.Second)
		if kind == "heap" || kind == "allocs" {
			runtime.GC() // The heap profile describes the last completed collection.
		}
		for _, file := range files {
			record(file, func(out *os.File) error { return pprof.Lookup(kind).WriteTo(out, 0) })
		}
		stop()
	}
}

// record creates the file and lets write fill it.
func record(name string, write func(*os.File) error) {
	out, err := os.Create(name)
	if err != nil {
		log.Fatal(err)
	}
	if err := write(out); err != nil {
		log.Fatal(fmt.Errorf("%s: %w", name, err))
	}
	if err := out.Close(); err != nil {
		log.Fatal(err)
	}
}

// open starts the shop's goroutines; the returned function waits until they have stopped.
func open() func() {
	done := make(chan struct{})
	var staff sync.WaitGroup
	start := func(work func(done chan struct{})) {
		staff.Add(1)
		go func() {
			defer staff.Done()
			work(done)
		}()
	}
	start(serveCheckout)
	start(serveSearch)
	start(restock)
	for range 3 {
		start(countTill)
	}
	start(courier)
	return func() {
		close(done)
		staff.Wait()
	}
}
