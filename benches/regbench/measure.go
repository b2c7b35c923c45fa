package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"sort"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"
)

// bench is what scenarios share: what is pushed already, and the watch over the server's memory.
type bench struct {
	small   []*image
	big     []blob
	subject *image
	tagged  *image
	peak    atomic.Int64 // KiB of the server's private memory, since the scenario began
	failed  bool         // written between scenarios only
}

type row struct {
	Scenario     string  `json:"scenario"`
	N            int     `json:"n"`
	C            int     `json:"c"`
	Failed       int64   `json:"failed"`
	PerS         float64 `json:"per_s"`
	MibS         float64 `json:"mib_s"`
	P50          float64 `json:"p50_ms"`
	P99          float64 `json:"p99_ms"`
	CPUEach      float64 `json:"server_cpu_ms_each"`
	DatabaseEach float64 `json:"database_cpu_ms_each"`
	StoreEach    float64 `json:"store_cpu_ms_each"`
	PrivateMib   float64 `json:"server_private_mib"`
	Error        string  `json:"error,omitempty"`
	Skipped      string  `json:"skipped,omitempty"`
	Note         string  `json:"note,omitempty"`
}

func (b *bench) report(r row) {
	if r.Failed > 0 {
		b.failed = true
	}
	if *asJSON {
		if err := json.NewEncoder(os.Stdout).Encode(r); err != nil {
			fmt.Fprintln(os.Stderr, "regbench: standard output:", err)
			os.Exit(1)
		}
		return
	}
	if r.Skipped != "" {
		fmt.Printf("skip %s: %s\n", r.Scenario, r.Skipped)
		return
	}
	fmt.Printf("%-16s n=%-6d c=%-3d %9.1f/s %9.1f MiB/s  p50 %8.2f ms  p99 %8.2f ms  cpu %7.3f + %7.3f + %7.3f ms each  private %5.0f MiB  failed %d %s%s\n",
		r.Scenario, r.N, r.C, r.PerS, r.MibS, r.P50, r.P99, r.CPUEach, r.DatabaseEach, r.StoreEach, r.PrivateMib, r.Failed, r.Error, r.Note)
}

func (b *bench) skip(name, why string) { b.report(row{Scenario: name, Skipped: why}) }

// measure runs at least n operations with c clients, for at least -atleast, and reports them. For what can be done again:
// `operate` gets the number of the operation, which goes beyond n.
func (b *bench) measure(name string, n, c, bytesEach int, operate func(i int) error) {
	b.report(b.timed(name, n, c, bytesEach, *atLeast, operate))
}

// measureOnce runs n operations, no more, and checks what they did after the clock has stopped.
func (b *bench) measureOnce(name string, n, c, bytesEach int, operate func(i int) error, check func() error) {
	r := b.timed(name, n, c, bytesEach, 0, operate)
	if check != nil && r.Failed == 0 {
		if err := check(); err != nil {
			r.Failed, r.Error = 1, err.Error()
		}
	}
	b.report(r)
}

func (b *bench) timed(name string, n, c, bytesEach int, least time.Duration, operate func(i int) error) row {
	var lock sync.Mutex
	var took []float64
	b.peak.Store(privateMemory(*pid))
	server, database, store, started := cpuSeconds(*pid), cpuOfTree(*dbPid), cpuSeconds(*storePid), time.Now()
	failed, first := each(n, c, started.Add(least), func(i int) error {
		began := time.Now()
		err := operate(i)
		ms := time.Since(began).Seconds() * 1000
		lock.Lock()
		took = append(took, ms)
		lock.Unlock()
		return err
	})
	elapsed := time.Since(started).Seconds()
	server, database, store = cpuSeconds(*pid)-server, cpuOfTree(*dbPid)-database, cpuSeconds(*storePid)-store
	sort.Float64s(took)
	done := float64(len(took))
	quantile := func(q float64) float64 { return took[int(math.Ceil(done*q))-1] }
	r := row{
		Scenario: name, N: len(took), C: c, Failed: failed, PerS: done / elapsed, MibS: float64(bytesEach) * done / elapsed / (1 << 20),
		P50: quantile(.5), P99: quantile(.99), CPUEach: server * 1000 / done, DatabaseEach: database * 1000 / done, StoreEach: store * 1000 / done,
		PrivateMib: float64(max(b.peak.Load(), privateMemory(*pid))) / 1024,
	}
	if first != nil {
		r.Error = first.Error()
	}
	return r
}

// each does n operations with c clients, and more until `until`; answers how many failed and how the first did.
func each(n, c int, until time.Time, operate func(i int) error) (int64, error) {
	var next, failed atomic.Int64
	var once sync.Once
	var first error
	var all sync.WaitGroup
	for range min(c, n) {
		all.Add(1)
		go func() {
			defer all.Done()
			for {
				i := int(next.Add(1)) - 1
				// A server that fails at once is not asked for as long as one that works.
				if i >= n && (failed.Load() > 0 || !time.Now().Before(until)) {
					return
				}
				if err := operate(i); err != nil {
					failed.Add(1)
					once.Do(func() { first = err })
				}
			}
		}()
	}
	all.Wait()
	return failed.Load(), first
}

// prepare is for what no row counts.
func prepare(n, c int, operate func(i int) error) error {
	_, err := each(n, c, time.Time{}, operate)
	return err
}

// statTicks answers fields 14 to 17 of /proc/PID/stat: user, system, and both of children that were waited for.
func statTicks(pid int) (fields [4]float64) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return
	}
	words := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+2:]))
	for i := range fields {
		fmt.Sscan(words[11+i], &fields[i])
	}
	return
}

const ticksPerSecond = 100

func cpuSeconds(pid int) float64 {
	if pid == 0 {
		return 0
	}
	// The CPU clock of a process (clock_getcpuclockid(3)): to the nanosecond, where /proc counts in ticks of 10 ms.
	var now syscall.Timespec
	clock := ^pid<<3 | 2
	if _, _, errno := syscall.Syscall(syscall.SYS_CLOCK_GETTIME, uintptr(clock), uintptr(unsafe.Pointer(&now)), 0); errno != 0 {
		return 0
	}
	return time.Duration(now.Nano()).Seconds()
}

// cpuOfTree adds children, alive or ended: PostgreSQL works in a process per connection.
func cpuOfTree(pid int) float64 {
	if pid == 0 {
		return 0
	}
	t := statTicks(pid)
	sum := (t[0] + t[1] + t[2] + t[3]) / ticksPerSecond
	children, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	if err != nil {
		return sum
	}
	for _, word := range strings.Fields(string(children)) {
		var child int
		fmt.Sscan(word, &child)
		sum += cpuOfTree(child)
	}
	return sum
}

// privateMemory is RssAnon and RssShmem in KiB: mapped blob files are the page cache's, not the server's own.
func privateMemory(pid int) (sum int64) {
	if pid == 0 {
		return 0
	}
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	for _, line := range strings.Split(string(b), "\n") {
		if strings.HasPrefix(line, "RssAnon:") || strings.HasPrefix(line, "RssShmem:") {
			var kib int64
			fmt.Sscan(line[strings.IndexByte(line, ':')+1:], &kib)
			sum += kib
		}
	}
	return
}

func (b *bench) watchMemory() {
	for {
		if now := privateMemory(*pid); now > b.peak.Load() {
			b.peak.Store(now)
		}
		time.Sleep(10 * time.Millisecond)
	}
}
