package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	slowPairs = 32 // so 64 slow clients: half of them push, half pull
	slowBytes = 4 << 10
	slowPause = 100 * time.Millisecond
)

// slowClients: pulls of small images without, then beside 64 clients that move 40 KiB/s each.
func slowClients(b *bench) error {
	if err := b.needSmall(); err != nil {
		return err
	}
	repository := *prefix + "/slow"
	content := newBlob(noise("slow", 0, 64<<20))
	if err := pushBlob(repository, content); err != nil {
		return err
	}
	pull := func(i int) error { return pullImage(b.small[i%len(b.small)]) }
	b.measure("pull-before-slow", *images, *clients, 10<<10, pull)

	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	var open, left atomic.Int64
	var all sync.WaitGroup
	for range slowPairs {
		for _, crawl := range []func() error{
			func() error { return slowPull(ctx, at(repository, "/blobs/"+content.digest), &open) },
			func() error { return slowPush(ctx, repository, &open) },
		} {
			all.Add(1)
			go func() {
				defer all.Done()
				if crawl(); ctx.Err() == nil {
					left.Add(1)
				}
			}()
		}
	}
	for open.Load()+left.Load() < 2*slowPairs {
		time.Sleep(10 * time.Millisecond)
	}
	r := b.timed("pull-beside-slow", *images, *clients, 10<<10, *atLeast, pull)
	if n := left.Load(); n > 0 {
		r.Note = fmt.Sprintf("%d of %d slow clients were cut off", n, 2*slowPairs)
	}
	stop()
	all.Wait()
	b.report(r)
	return nil
}

// A client whose kernel takes little in advance, so that the server feels how slow it is.
func slowClient() *http.Client {
	dialer := net.Dialer{Control: func(_, _ string, c syscall.RawConn) error {
		var failed error
		if err := c.Control(func(fd uintptr) {
			failed = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, 16<<10)
		}); err != nil {
			return err
		}
		return failed
	}}
	return &http.Client{Transport: &http.Transport{DialContext: dialer.DialContext, ReadBufferSize: slowBytes, DisableKeepAlives: true}}
}

func slowPull(ctx context.Context, target string, open *atomic.Int64) error {
	r, err := doWith(ctx, slowClient(), "GET", target, nil, 200)
	if err != nil {
		return err
	}
	defer r.Body.Close()
	open.Add(1)
	buf := make([]byte, slowBytes)
	for {
		if _, err := r.Body.Read(buf); err != nil {
			return err
		}
		time.Sleep(slowPause)
	}
}

func slowPush(ctx context.Context, repository string, open *atomic.Int64) error {
	session, err := begin(repository)
	if err != nil {
		return err
	}
	open.Add(1)
	_, err = doWith(ctx, slowClient(), "PATCH", session.String(), &body{Reader: drip{ctx}, length: -1, kind: "application/octet-stream"}, 202)
	return err
}

// drip is a body that never ends and is never ready.
type drip struct{ ctx context.Context }

func (d drip) Read(p []byte) (int, error) {
	select {
	case <-d.ctx.Done():
		return 0, d.ctx.Err()
	case <-time.After(slowPause):
		return min(len(p), slowBytes), nil
	}
}
