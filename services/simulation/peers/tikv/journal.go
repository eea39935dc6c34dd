package main

import (
	"bufio"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"path/filepath"
	"sync"

	"github.com/pingcap/kvproto/pkg/kvrpcpb"
)

// A file of the journal is full at this size. Two are kept: locks that are older than both have long been resolved.
const journalFileBytes = 32 << 20

// journal holds the latest prewrites in two files, each as its length in four bytes and the request. It is written, not
// synced: it survives the process, not the machine.
type journal struct {
	mu     sync.Mutex
	folder string
	file   *os.File
	bytes  int64
}

// openJournal hands every request of the journal to replay, oldest first, and appends from then on. A request that
// was committed or rolled back is refused by the store when it comes again, which is right.
func openJournal(folder string, replay func(*kvrpcpb.PrewriteRequest) error) (*journal, error) {
	j := &journal{folder: folder}
	for _, path := range []string{j.path("old"), j.path("new")} {
		if err := read(path, replay); err != nil {
			return nil, err
		}
	}
	file, err := os.OpenFile(j.path("new"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	end, err := file.Seek(0, io.SeekEnd)
	j.file, j.bytes = file, end
	return j, err
}

func (j *journal) path(which string) string { return filepath.Join(j.folder, "prewrites."+which) }

func (j *journal) append(request *kvrpcpb.PrewriteRequest) error {
	body, err := request.Marshal()
	if err != nil {
		return err
	}
	entry := append(binary.BigEndian.AppendUint32(nil, uint32(len(body))), body...)
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.bytes > journalFileBytes {
		if err := j.rotate(); err != nil {
			return err
		}
	}
	written, err := j.file.Write(entry)
	j.bytes += int64(written)
	return err
}

func (j *journal) rotate() error {
	if err := os.Rename(j.path("new"), j.path("old")); err != nil {
		return err
	}
	file, err := os.OpenFile(j.path("new"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	j.file.Close()
	j.file, j.bytes = file, 0
	return nil
}

// read hands over the requests of one file, which may not exist. The kill may have cut the last one, which was then
// never answered; it is cut off, so that what is appended can be read.
func read(path string, replay func(*kvrpcpb.PrewriteRequest) error) error {
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer file.Close()
	reader, whole := bufio.NewReader(file), int64(0)
	for {
		var length [4]byte
		if _, err := io.ReadFull(reader, length[:]); err != nil {
			return file.Truncate(whole)
		}
		body := make([]byte, binary.BigEndian.Uint32(length[:]))
		if _, err := io.ReadFull(reader, body); err != nil {
			return file.Truncate(whole)
		}
		whole += int64(len(length) + len(body))
		request := new(kvrpcpb.PrewriteRequest)
		if err := request.Unmarshal(body); err != nil {
			return err
		}
		if err := replay(request); err != nil {
			return err
		}
	}
}
