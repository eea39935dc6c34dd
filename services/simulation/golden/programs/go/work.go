package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"net/http/httptest"
	httppprof "net/http/pprof"
	"os"
	"regexp"
	"runtime"
	"runtime/pprof"
	"sort"
	"strings"
	"sync"
	"time"
)

// Node is one category of the catalogue; the tree is walked recursively.
type Node struct {
	Name     string  `json:"name"`
	Cents    int     `json:"cents"`
	Children []*Node `json:"children,omitempty"`
}

// plant builds a tree of the given depth and fan-out.
func plant(name string, depth, fan int) *Node {
	node := &Node{Name: name, Cents: len(name) * depth}
	if depth == 0 {
		return node
	}
	for i := range fan {
		node.Children = append(node.Children, plant(fmt.Sprintf("%s.%d", name, i), depth-1, fan))
	}
	return node
}

// clamp and price are small enough to be inlined into walk, one inside the other.
func clamp(v, low, high int) int {
	if v < low {
		return low
	}
	if v > high {
		return high
	}
	return v
}

func price(node *Node, seed int) int {
	v := node.Cents
	for i := 0; i < 24; i++ {
		v = v*31 + seed ^ i
	}
	return clamp(v, 0, 1<<20)
}

// walk is directly recursive: a stack holds it many times and pprof counts it once.
func walk(node *Node, seed int) int {
	sum := price(node, seed)
	for _, child := range node.Children {
		sum += walk(child, seed+1)
	}
	return sum
}

// even and odd are mutually recursive, so two functions alternate in one stack.
//
//go:noinline
func even(n int, node *Node) int {
	if n == 0 {
		return walk(node, n)
	}
	return odd(n-1, node) + 1
}

//go:noinline
func odd(n int, node *Node) int {
	if n == 0 {
		return walk(node, n)
	}
	return even(n-1, node) + 1
}

// stopped reports whether the shop is closing.
func stopped(done chan struct{}) bool {
	select {
	case <-done:
		return true
	default:
		return false
	}
}

// serveCheckout works under the labels endpoint and region.
func serveCheckout(done chan struct{}) {
	catalogue := plant("shop", 6, 3)
	regions := []string{"eu-west", "us-east"}
	for turn := 0; !stopped(done); turn++ {
		labels := pprof.Labels("endpoint", "/checkout", "region", regions[turn%len(regions)])
		pprof.Do(context.Background(), labels, func(context.Context) {
			even(turn%5, catalogue)
			sign(catalogue)
		})
	}
}

// sign turns a part of the catalogue into JSON and hashes it.
func sign(catalogue *Node) [32]byte {
	text, err := json.Marshal(catalogue.Children[0].Children[0])
	if err != nil {
		panic(err)
	}
	return sha256.Sum256(text)
}

var pattern = regexp.MustCompile(`(\w+)\.(\d+)\.(\d+)`)

// serveSearch works under one label only; its helper closures become func1, func2 in the profile.
func serveSearch(done chan struct{}) {
	words := make([]string, 0, 512)
	for i := range 512 {
		words = append(words, fmt.Sprintf("item.%d.%d", i%17, i))
	}
	for !stopped(done) {
		pprof.Do(context.Background(), pprof.Labels("endpoint", "/search"), func(context.Context) {
			found := make([]string, 0, len(words))
			for _, word := range words {
				if pattern.MatchString(word) {
					found = append(found, strings.ToUpper(word))
				}
			}
			sort.Slice(found, func(i, j int) bool { return found[i] < found[j] })
		})
	}
}

var shelf struct {
	sync.Mutex
	boxes map[int][]byte
}

// restock allocates without labels; some boxes stay alive.
func restock(done chan struct{}) {
	for turn := 0; !stopped(done); turn++ {
		stock(turn%256, bytes.Repeat([]byte{byte(turn)}, 4096))
		time.Sleep(200 * time.Microsecond)
	}
}

func stock(slot int, box []byte) {
	shelf.Lock()
	defer shelf.Unlock()
	if shelf.boxes == nil {
		shelf.boxes = map[int][]byte{}
	}
	shelf.boxes[slot] = box
}

var till sync.Mutex

// countTill holds a lock for a while, three goroutines at once, so that mutex and block profiles have content.
func countTill(done chan struct{}) {
	for !stopped(done) {
		till.Lock()
		time.Sleep(300 * time.Microsecond)
		till.Unlock()
		time.Sleep(100 * time.Microsecond)
	}
}

// courier waits on channels.
func courier(done chan struct{}) {
	parcels := make(chan int)
	go func() {
		defer close(parcels)
		for i := 0; !stopped(done); i++ {
			time.Sleep(time.Millisecond)
			parcels <- i
		}
	}()
	for range parcels {
	}
}

// heapDelta records the change of the heap over a second with net/http/pprof's own handler. The old stock is
// freed in between, which makes negative in-use values.
func heapDelta(out *os.File) error {
	stock := hoard(2048)
	go func() {
		time.Sleep(300 * time.Millisecond)
		stock = refill(stock)
		runtime.GC() // Publishes the heap profile as of this collection.
	}()
	request := httptest.NewRequest("GET", "/debug/pprof/heap?seconds=1&gc=1", nil)
	response := httptest.NewRecorder()
	httppprof.Handler("heap").ServeHTTP(response, request)
	if len(stock) != 256 {
		return fmt.Errorf("the stock was not refilled")
	}
	_, err := out.Write(response.Body.Bytes())
	return err
}

// refill keeps nothing of the old stock but its size.
//
//go:noinline
func refill(old [][]byte) [][]byte {
	return hoard(len(old) / 8)
}

// hoard keeps boxes of 16 KiB.
func hoard(boxes int) [][]byte {
	kept := make([][]byte, boxes)
	for i := range kept {
		kept[i] = bytes.Repeat([]byte{byte(i)}, 16<<10)
	}
	return kept
}
