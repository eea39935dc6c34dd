// Command names resolves keys as PingCAP's own client for Go does it: all of them in one batch of a snapshot that is
// new in every round. It prints a line of JSON; what it measures, our client is measured against.
package main

import (
	"bufio"
	"context"
	"encoding/hex"
	"encoding/json"
	"flag"
	"log"
	"os"
	"time"

	pinglog "github.com/pingcap/log"
	"github.com/tikv/client-go/v2/oracle"
	"github.com/tikv/client-go/v2/txnkv"
	"go.uber.org/zap/zapcore"
)

// What one run saw.
type report struct {
	Keys  int     `json:"keys"`
	Found int     `json:"found"`
	Bytes int     `json:"bytes"`
	Nanos []int64 `json:"nanos"`
}

func main() {
	placement := flag.String("pd", "", "address of the placement driver, host:port")
	path := flag.String("keys", "", "file of keys, one a line, hexadecimal")
	rounds := flag.Int("rounds", 20, "how often all keys are resolved")
	flag.Parse()
	pinglog.SetLevel(zapcore.ErrorLevel)
	keys, err := readKeys(*path)
	if err != nil {
		log.Fatal(err)
	}
	seen, err := resolve(*placement, keys, *rounds)
	if err != nil {
		log.Fatal(err)
	}
	if err := json.NewEncoder(os.Stdout).Encode(seen); err != nil {
		log.Fatal(err)
	}
}

func readKeys(path string) ([][]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	var keys [][]byte
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		key, err := hex.DecodeString(lines.Text())
		if err != nil {
			return nil, err
		}
		keys = append(keys, key)
	}
	return keys, lines.Err()
}

func resolve(placement string, keys [][]byte, rounds int) (*report, error) {
	client, err := txnkv.NewClient([]string{placement})
	if err != nil {
		return nil, err
	}
	defer client.Close()
	seen := &report{Keys: len(keys)}
	for range rounds {
		start := time.Now()
		now, err := client.CurrentTimestamp(oracle.GlobalTxnScope)
		if err != nil {
			return nil, err
		}
		found, err := client.GetSnapshot(now).BatchGet(context.Background(), keys)
		if err != nil {
			return nil, err
		}
		seen.Nanos = append(seen.Nanos, time.Since(start).Nanoseconds())
		seen.Found, seen.Bytes = len(found), 0
		for _, value := range found {
			seen.Bytes += len(value)
		}
	}
	return seen, nil
}
