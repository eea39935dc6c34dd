// Command tikv-store speaks the wire protocol of a TiKV store for tests: TiDB's unistore behind a gRPC server,
// registered with a real placement driver. Of the API only transactions work, and there is one store without Raft.
//
//	prewrite ─► journal ─► unistore (locks in memory) ─► commit ─► badger, synced
//
// Unistore keeps locks in memory only, so a kill between the commit of a transaction's primary key and those of its
// other keys would lose the latter. The journal brings them back: prewrites are sent again when the store starts.
package main

import (
	"context"
	"flag"
	"log"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/pingcap/kvproto/pkg/kvrpcpb"
	"github.com/pingcap/kvproto/pkg/pdpb"
	"github.com/pingcap/kvproto/pkg/tikvpb"
	"github.com/pingcap/tidb/pkg/store/mockstore/unistore/config"
	"github.com/pingcap/tidb/pkg/store/mockstore/unistore/pd"
	"github.com/pingcap/tidb/pkg/store/mockstore/unistore/server"
	"github.com/pingcap/tidb/pkg/store/mockstore/unistore/tikv"
	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"
)

// How long calls may take to end once the store is to stop.
const stopWithin = time.Second

// How often all regions are reported.
const reportEvery = time.Second

func main() {
	placement := flag.String("pd", "", "address of the placement driver, host:port")
	address := flag.String("addr", "", "address to listen on and to register, host:port")
	folder := flag.String("data", "", "folder of the data, created if need be")
	regionBytes := flag.Int64("region-bytes", 64<<20, "a region of one and a half times this is split")
	flag.Parse()
	if *placement == "" || *address == "" || *folder == "" {
		log.Fatal("-pd, -addr and -data are needed")
	}
	if err := run(*placement, *address, *folder, *regionBytes); err != nil {
		log.Fatal(err)
	}
}

func run(placement, address, folder string, regionBytes int64) error {
	if err := os.MkdirAll(filepath.Join(folder, "kv"), 0o755); err != nil {
		return err
	}
	// Before the store is known to the placement driver, so that a call that comes at once finds somebody.
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	conf := config.DefaultConf
	conf.Server.Raft = false
	conf.Server.StoreAddr = address
	conf.Server.RegionSize = regionBytes
	conf.Engine.DBPath = folder
	conf.Engine.SyncWrite = true
	conf.Engine.MaxMemTableSize = 12 << 20
	conf.Engine.NumCompactors = 1
	conf.Engine.VlogFileSize = 16 << 20
	client, err := pd.NewClient([]string{placement}, "")
	if err != nil {
		return err
	}
	reports := &reporter{Client: client, latest: map[uint64]*pdpb.RegionHeartbeatRequest{}}
	go reports.repeat()
	store, err := server.New(&conf, reports)
	if err != nil {
		return err
	}
	locks, err := openJournal(folder, func(request *kvrpcpb.PrewriteRequest) error {
		_, err := store.KvPrewrite(context.Background(), request)
		return err
	})
	if err != nil {
		return err
	}
	calls := grpc.NewServer(grpc.KeepaliveEnforcementPolicy(
		keepalive.EnforcementPolicy{MinTime: time.Second, PermitWithoutStream: true}))
	tikvpb.RegisterTikvServer(calls, &peer{Server: store, locks: locks})
	go stopOnSignal(calls)
	log.Printf("serving %s", address)
	if err := calls.Serve(listener); err != nil {
		return err
	}
	store.Stop()
	return nil
}

// stopOnSignal ends the server once the process is told to stop. Streams never end by themselves.
func stopOnSignal(calls *grpc.Server) {
	told := make(chan os.Signal, 1)
	signal.Notify(told, syscall.SIGTERM, syscall.SIGINT)
	<-told
	late := time.AfterFunc(stopWithin, calls.Stop)
	defer late.Stop()
	calls.GracefulStop()
}

// peer is the store whose locks outlive the process.
type peer struct {
	*tikv.Server
	locks *journal
}

// KvPrewrite locks keys; what it is answered holds after a kill too.
func (p *peer) KvPrewrite(ctx context.Context, request *kvrpcpb.PrewriteRequest) (*kvrpcpb.PrewriteResponse, error) {
	if err := p.locks.append(request); err != nil {
		return nil, err
	}
	return p.Server.KvPrewrite(ctx, request)
}

// reporter reports each region again and again, as a store does. Unistore does it once, and a placement driver that was
// started again would not know who leads.
type reporter struct {
	pd.Client
	mu     sync.Mutex
	latest map[uint64]*pdpb.RegionHeartbeatRequest
}

// ReportRegion tells the placement driver about a region, now and from now on.
func (r *reporter) ReportRegion(request *pdpb.RegionHeartbeatRequest) {
	r.mu.Lock()
	r.latest[request.Region.Id] = request
	r.mu.Unlock()
	copied := *request
	r.Client.ReportRegion(&copied)
}

func (r *reporter) repeat() {
	for range time.Tick(reportEvery) {
		for _, request := range r.all() {
			r.Client.ReportRegion(request)
		}
	}
}

// all are copies: the client fills them in.
func (r *reporter) all() []*pdpb.RegionHeartbeatRequest {
	r.mu.Lock()
	defer r.mu.Unlock()
	var all []*pdpb.RegionHeartbeatRequest
	for _, request := range r.latest {
		copied := *request
		all = append(all, &copied)
	}
	return all
}
