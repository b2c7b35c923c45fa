package main

import (
	"flag"
	"fmt"
	"math"
	"sort"
	"time"
)

var rate = flag.Int("rate", 200, "requests a second of the scenario refused, over all its clients")

// refused: requests whose credentials do not hold, at a steady rate, so that a neighbour's figures can be taken beside them.
func refused(b *bench) error {
	// Over 1,000 ahead of their time: what came late is made up for, not forgotten.
	ticks := make(chan struct{}, 1000)
	go func() {
		for range time.Tick(time.Second / time.Duration(*rate)) {
			ticks <- struct{}{}
		}
	}()
	b.measure("refused", *images, *clients, 0, func(int) error {
		<-ticks
		_, err := send("GET", *base+"/v2/", nil, 401, 429, 503)
		return err
	})
	return nil
}

// existence: requests that are refused, by turns for a repository that is there and for one that is not. One row each, and how far
// apart the two distributions are (Kolmogorov-Smirnov), beside how far those of the same repository are by chance.
func existence(b *bench) error {
	there, absent := at(*prefix+"/small-0", "/manifests/t0"), at(*prefix+"/small-nil", "/manifests/t0")
	targets := []string{there, absent, there}
	taken := make([][]float64, len(targets))
	for i := 0; i < *images*len(targets); i++ {
		which := i % len(targets)
		began := time.Now()
		if _, err := send("GET", targets[which], nil, 401, 403); err != nil {
			return err
		}
		taken[which] = append(taken[which], time.Since(began).Seconds()*1000)
	}
	for _, times := range taken {
		sort.Float64s(times)
	}
	note := fmt.Sprintf("KS distance %.3f, of the same repository by chance %.3f", distance(taken[0], taken[1]), distance(taken[0], taken[2]))
	for which, name := range []string{"existence-private", "existence-absent"} {
		times := taken[which]
		b.report(row{Scenario: name, N: len(times), C: 1, P50: times[len(times)/2], P99: times[len(times)*99/100], Note: note})
	}
	return nil
}

// distance is the largest difference between the shares of two sorted samples that lie below any value.
func distance(one, other []float64) float64 {
	most, i, j := 0.0, 0, 0
	for i < len(one) && j < len(other) {
		if one[i] <= other[j] {
			i++
		} else {
			j++
		}
		most = max(most, math.Abs(float64(i)/float64(len(one))-float64(j)/float64(len(other))))
	}
	return most
}
