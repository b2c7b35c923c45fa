// regbench loads any OCI registry the same way, so that several can be compared in one run on one machine.
//
//	regbench -url http://127.0.0.1:5000 [-pid SERVER_PID] [-db-pid PID] [-store-pid PID] [-user u:p] [-only push-small,pull-big,...] [-json]
//
// Every digest and byte is made before the clock starts, and every byte that a scenario moves is compared with what was
// pushed: what is pulled as it arrives, what is pushed by a pull after the clock has stopped. With -pid the server's own
// CPU seconds and peak memory are printed too: on a shared machine those are steadier than wall time. The status is 1
// when any operation failed, so that a bench can never quote a rate of errors.
package main

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"time"
)

var (
	base          = flag.String("url", "http://127.0.0.1:5000", "registry")
	pid           = flag.Int("pid", 0, "server process, for CPU and memory")
	dbPid         = flag.Int("db-pid", 0, "process of the server's database, for its CPU with all its children's")
	storePid      = flag.Int("store-pid", 0, "process of the server's object storage, for its CPU")
	user          = flag.String("user", "", "user:password for basic auth")
	authorization = flag.String("authorization", "", "file of Authorization headers, one a line, those of one repository with its name and a tab in front; requests take them in turn")
	only          = flag.String("only", "table", "scenarios or groups: table, more, all (both), cold; -list names them")
	list          = flag.Bool("list", false, "name the scenarios and end")
	images        = flag.Int("images", 1500, "small images pushed and pulled")
	clients       = flag.Int("c", 16, "concurrent clients of the small scenarios")
	bigMiB        = flag.Int("big", 256, "size of a big blob, MiB")
	bigN          = flag.Int("bign", 8, "big blobs moved")
	bigC          = flag.Int("bigc", 4, "concurrent clients of the big scenarios")
	tags          = flag.Int("tags", 5000, "tags of the tag-list scenario")
	many          = flag.Int("many", 100000, "tags of the scenarios with many tags")
	refs          = flag.Int("referrers", 1000, "referrers of the one subject")
	fill          = flag.Duration("fill", 4*time.Minute, "longest time to put the many tags; scenarios that need them are skipped then")
	atLeast       = flag.Duration("atleast", 2*time.Second, "least time of a scenario that reads, which goes round its things again")
	asJSON        = flag.Bool("json", false, "one JSON object a line")
	prefix        = flag.String("prefix", "bench", "repository prefix")
)

// A scenario measures one or more rows; it makes what it needs, unmeasured, where no scenario before it did.
type scenario struct {
	name, group string
	run         func(*bench) error
}

var scenarios = []scenario{
	{"push-small", "table", pushSmall},
	{"pull-small", "table", pullSmall},
	{"manifest", "table", hotManifest},
	{"tag-put", "table", tagPut},
	{"tags-list", "table", tagsList},
	{"push-big", "table", pushBig},
	{"pull-big", "table", pullBig},
	{"head", "more", heads},
	{"mixed", "more", mixed},
	{"push-streamed", "more", pushStreamed},
	{"push-chunked", "more", pushChunked},
	{"referrers", "more", referrers},
	{"slow", "more", slowClients},
	{"tags-many", "more", tagsMany},
	{"cold-fill", "cold", coldFill},
	{"cold-pull", "cold", coldPull},
	{"refused", "access", refused},
	{"existence", "access", existence},
}

// wanted tells whether -only names the scenario or its group; cold ones are never part of all, as they need a restart, nor is
// access, which needs credentials that do not hold.
func wanted(s scenario) bool {
	for _, word := range strings.Split(*only, ",") {
		if word == s.name || word == s.group || word == "all" && s.group != "cold" && s.group != "access" {
			return true
		}
	}
	return false
}

// unless leaves a check to a scenario of the table that compares the same bytes, if that one is wanted too.
func unless(name string, check func() error) func() error {
	if wanted(scenario{name: name, group: "table"}) {
		return nil
	}
	return check
}

func known(word string) bool {
	for _, s := range scenarios {
		if word == s.name || word == s.group || word == "all" {
			return true
		}
	}
	return false
}

func main() {
	flag.Parse()
	for _, word := range strings.Split(*only, ",") {
		if !known(word) {
			fmt.Fprintf(os.Stderr, "regbench: no scenario or group is named %q; -list names them\n", word)
			os.Exit(2)
		}
	}
	if *list {
		for _, s := range scenarios {
			fmt.Println(s.group, s.name)
		}
		return
	}
	if err := readAuthorizations(); err != nil {
		fmt.Fprintln(os.Stderr, "regbench:", err)
		os.Exit(2)
	}
	b := &bench{}
	if *pid != 0 {
		go b.watchMemory()
	}
	for _, s := range scenarios {
		if !wanted(s) {
			continue
		}
		if err := s.run(b); err != nil {
			b.report(row{Scenario: s.name, Failed: 1, Error: err.Error()})
		}
	}
	if b.failed {
		os.Exit(1)
	}
}
