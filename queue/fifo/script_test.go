package fifo

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

var rewrite = flag.Bool("rewrite", false, "write the output that the scripts have now into testdata")

// A script is a sequence of blocks separated by blank lines: commands, a line "----", and their whole output.
// Lines that begin with # are comments. Commands are words, options are key=value. Every script begins with new:
//
//	new [first=N] [max-priority=N] [default-priority=N] [single] [preempt] [groups]
//	restore next=N from=N SEQ...    make the given seqs, 10 bytes each, the backlog after a restart
//	restore-item SEQ... [priority=N] [deadline=N] [not-before=N] [deliveries=N] [acquired=N]
//	restore-timer SEQ... deadline=N
//	enqueue NAME... [size=N] [x=N] [priority=N] [deadline=N] [group=N]
//	                                enqueue persistent messages; x=N enqueues N named after their seq
//	transient NAME...               enqueue messages that are never stored
//	store [to=N]                    the store has written every persistent message (with a seq below N)
//	lose SEQ                        the store has lost a message
//	subscribe ID [prefetch=N] [priority=N] [no-ack] [exclusive]
//	cancel ID, park ID, unpark ID, prefetch ID N
//	refuse ID, admit ID             let the admitter say no or yes for this consumer
//	deliver [n=N] [limit=N]         call Next up to N times (default: until it says false)
//	get [no-ack] [limit=N]
//	peek [n=N]                      what Peek shows, and whether that is all
//	ack SEQ..., requeue SEQ... [failed], hold SEQ... until=N [failed], bury SEQ..., counts SEQ...
//	                                each SEQ may be LOW-HIGH
//	expire now=N [keep] [n=N]       call Expire up to N times (default: until it says false)
//	drop [keep] [n=N]               call DropHead N times (default: once)
//	release-held now=N [max=N], next-deadline
//	purge
//	page-out [keep=N] [max=N], release [max=N]
//	needs-load [window=N]
//	read [n=N]                      read up to N messages from the store for the load in flight
//	load [n=N], load-failed         end the load, with what was read or else with what read n=N finds
//	state
type script struct {
	m       *Machine[string]
	out     bytes.Buffer
	disk    []diskMessage // live messages in seq order
	refuses map[ConsumerID]bool

	// Of the load in flight.
	want  []Interval
	next  uint64
	items []LoadedItem[string]
	read  bool
}

type diskMessage struct {
	LoadedItem[string]
	persistent, stored bool
}

func (s *script) Admit(id ConsumerID, _ uint32) bool { return !s.refuses[id] }

func (s *script) message(seq uint64) int {
	at, ok := slices.BinarySearchFunc(s.disk, seq, func(d diskMessage, seq uint64) int { return int(d.Seq) - int(seq) })
	if !ok {
		return -1
	}
	return at
}

func (s *script) forget(seq uint64) {
	if at := s.message(seq); at >= 0 {
		s.disk = slices.Delete(s.disk, at, at+1)
	}
}

func (s *script) stored(seq uint64) bool { return s.disk[s.message(seq)].stored }

// command is a parsed line.
type command struct {
	name    string
	words   []string
	options map[string]string
}

func parseCommand(line string) command {
	c := command{options: map[string]string{}}
	for i, w := range strings.Fields(line) {
		if key, value, ok := strings.Cut(w, "="); ok {
			c.options[key] = value
		} else if i == 0 {
			c.name = w
		} else {
			c.words = append(c.words, w)
		}
	}
	return c
}

func (c command) flag(name string) bool { return slices.Contains(c.words, name) }

func (c command) number(key string, otherwise int) int {
	if v, ok := c.options[key]; ok {
		return atoi(v)
	}
	return otherwise
}

func (c command) id() ConsumerID { return ConsumerID(atoi(c.words[0])) }

// seqs returns the numbers and LOW-HIGH ranges among the words.
func (c command) seqs() (seqs []uint64) {
	for _, w := range c.words {
		if w[0] < '0' || w[0] > '9' {
			continue // a flag
		}
		low, high, ok := strings.Cut(w, "-")
		if !ok {
			high = low
		}
		for seq := atoi(low); seq <= atoi(high); seq++ {
			seqs = append(seqs, uint64(seq))
		}
	}
	return seqs
}

func atoi(s string) int {
	n, err := strconv.Atoi(s)
	if err != nil {
		panic(err)
	}
	return n
}

func (s *script) printf(format string, args ...any) { fmt.Fprintf(&s.out, format+"\n", args...) }

func (s *script) run(line string) {
	c := parseCommand(line)
	switch c.name {
	case "new":
		*s = script{refuses: map[ConsumerID]bool{}, m: New[string](Options{
			FirstSeq:     uint64(c.number("first", 0)),
			MaxPriority:  uint8(c.number("max-priority", 0)),
			SingleActive: c.flag("single"),
			Preempt:      c.flag("preempt"),
			Groups:       c.flag("groups"),

			DefaultPriority: uint8(c.number("default-priority", 0)),
		})}
	case "enqueue", "transient":
		s.enqueue(c)
	case "subscribe":
		s.subscribe(c)
	case "cancel":
		s.m.Unsubscribe(c.id())
	case "park":
		s.m.Park(c.id())
	case "unpark":
		s.m.Unpark(c.id())
	case "prefetch":
		s.m.SetPrefetch(c.id(), uint32(atoi(c.words[1])))
	case "refuse", "admit":
		s.refuses[c.id()] = c.name == "refuse"
	case "deliver":
		s.deliver(c)
	case "get":
		var d Delivery[string]
		if s.m.Get(uint64(c.number("limit", 1<<30)), c.flag("no-ack"), &d) {
			s.delivered(d)
		} else {
			s.printf("nothing")
		}
	case "peek":
		_, complete := s.m.Peek(c.number("n", 1<<20), func(d *Delivery[string]) {
			s.printf("%d %s priority %d redelivered %v failed %d", d.Seq, d.Payload, d.Priority, d.Redelivered, d.Deliveries)
		})
		s.printf("complete %v", complete)
	case "ack", "requeue", "hold", "bury", "counts":
		for _, seq := range c.seqs() {
			s.settle(c, seq)
		}
	case "state":
		s.state()
	case "expire", "drop", "release-held", "next-deadline":
		s.runTime(c)
	default:
		s.runStore(c)
	}
}

func (s *script) state() {
	m := s.m
	seq, loaded, ok := m.Head()
	s.printf("ready %d (%d bytes), unacked %d, loaded %d bytes, consumers %d, exclusive %t, next %d, handed out %d",
		m.Ready(), m.ReadyBytes(), m.Unacked(), m.LoadedBytes(), m.Consumers(), m.HasExclusive(), m.NextSeq(), m.HandedOut())
	if ok {
		s.printf("head %d, loaded %t", seq, loaded)
	}
	if m.Held() > 0 || m.Leaving() > 0 {
		s.printf("held %d, leaving %d", m.Held(), m.Leaving())
	}
	if m.roster.single {
		s.printf("active %d", m.Active())
	}
}

// runTime runs the commands that take out messages without handing them out.
func (s *script) runTime(c command) {
	take := func(d *Delivery[string]) bool { return s.m.Expire(int64(c.number("now", 0)), c.flag("keep"), d) }
	n := 1 << 30
	switch c.name {
	case "next-deadline":
		if at, ok := s.m.NextDeadline(); ok {
			s.printf("at %d", at)
		} else {
			s.printf("none")
		}
		return
	case "release-held":
		s.printf("released %d", s.m.Release(int64(c.number("now", 0)), c.number("max", 1<<30)))
		return
	case "drop":
		take = func(d *Delivery[string]) bool { return s.m.DropHead(c.flag("keep"), d) }
		n = 1
	}
	for range c.number("n", n) {
		var d Delivery[string]
		if !take(&d) {
			s.printf("no more")
			return
		}
		text := fmt.Sprintf("%d %s", d.Seq, d.Payload)
		if d.Unloaded {
			text += "not in memory"
		}
		if d.NoAck {
			s.forget(d.Seq)
		} else {
			text += ", leaving"
		}
		s.printf("%s%s", text, pastOf(d))
	}
}

// pastOf describes the past of a message.
func pastOf(d Delivery[string]) (text string) {
	if d.Redelivered {
		text = ", redelivered"
	}
	if d.Deliveries > 0 {
		text += fmt.Sprintf(", failed %d of %d", d.Deliveries, d.Acquired)
	}
	return text
}

// runStore runs the commands that have to do with the store.
func (s *script) runStore(c command) {
	switch c.name {
	case "restore":
		bytes := 0
		for i, seq := range c.seqs() {
			item := LoadedItem[string]{Seq: seq, Payload: "m" + strconv.Itoa(int(seq)), Size: 10, Redelivered: i == 0, Priority: s.m.ready.priority}
			s.disk = append(s.disk, diskMessage{item, true, true})
			bytes += 10
		}
		s.m.Restore(uint64(c.number("next", 0)), uint64(c.number("from", 0)), len(s.disk), uint64(bytes))
	case "restore-item":
		for _, seq := range c.seqs() {
			item := LoadedItem[string]{Seq: seq, Payload: "m" + strconv.Itoa(int(seq)), Size: 10}
			item.Priority = uint8(c.number("priority", int(s.m.ready.priority)))
			item.Deliveries, item.Acquired = uint16(c.number("deliveries", 0)), uint16(c.number("acquired", 0))
			s.disk = append(s.disk, diskMessage{item, true, true})
			s.m.RestoreItem(RestoredItem{
				Seq: seq, Size: 10, Priority: item.Priority,
				Deadline: int64(c.number("deadline", 0)), NotBefore: int64(c.number("not-before", 0)),
				Deliveries: item.Deliveries, Acquired: item.Acquired,
			})
		}
		slices.SortFunc(s.disk, func(x, y diskMessage) int { return int(x.Seq) - int(y.Seq) })
	case "restore-timer":
		for _, seq := range c.seqs() {
			s.m.RestoreTimer(seq, int64(c.number("deadline", 0)))
		}
	case "store":
		for i := range s.disk {
			d := &s.disk[i]
			d.stored = d.stored || d.persistent && d.Seq < uint64(c.number("to", 1<<30))
		}
	case "lose":
		s.forget(c.seqs()[0])
	case "purge":
		ranges := ""
		n := s.m.Purge(func(from, to uint64) {
			ranges += fmt.Sprintf(" [%d,%d)", from, to)
			for ; from < to; from++ {
				s.forget(from)
			}
		})
		s.printf("purged %d%s", n, ranges)
	case "page-out":
		n, bytes := s.m.PageOut(c.number("keep", 0), c.number("max", 1<<30), s.stored)
		s.printf("paged out %d, %d bytes", n, bytes)
	case "release":
		n, bytes := s.m.ReleaseUnacked(c.number("max", 1<<30), s.stored)
		s.printf("released %d, %d bytes", n, bytes)
	case "needs-load":
		if want := s.m.NeedsLoad(c.number("window", 1)); want == nil {
			s.printf("needs nothing")
		} else {
			s.want = want
			text := "needs"
			for _, w := range want {
				text += fmt.Sprintf(" [%d,%d)", w.From, w.To)
			}
			s.printf("%s", text)
		}
	case "read":
		s.readStore(c.number("n", 1<<30))
	case "load":
		if !s.read {
			s.readStore(c.number("n", 1<<30))
		}
		s.printf("%d messages below %d, missing %d", len(s.items), s.next, s.m.Loaded(s.items, s.next))
		s.read = false
	case "load-failed":
		s.read = false
		s.m.LoadFailed()
	default:
		panic("unknown command " + c.name)
	}
}

func (s *script) enqueue(c command) {
	for range c.number("x", 0) {
		c.words = append(c.words, "")
	}
	first := s.m.NextSeq()
	for i, name := range c.words {
		if name == "" {
			name = "m" + strconv.Itoa(int(first)+i)
		}
		item := Item[string]{
			Payload:  name,
			Size:     uint32(c.number("size", 1)),
			Priority: uint8(c.number("priority", int(s.m.ready.priority))),
			Deadline: int64(c.number("deadline", 0)),
			Group:    uint16(c.number("group", 0)),
		}
		seq := s.m.Enqueue(item)
		s.disk = append(s.disk, diskMessage{
			LoadedItem: LoadedItem[string]{Seq: seq, Payload: item.Payload, Size: item.Size, Priority: item.Priority, Group: item.Group},
			persistent: c.name == "enqueue",
		})
	}
	s.printf("seq %d-%d", first, s.m.NextSeq()-1)
}

func (s *script) subscribe(c command) {
	err := s.m.Subscribe(Consumer{
		ID:        c.id(),
		Prefetch:  uint32(c.number("prefetch", 0)),
		Priority:  int32(c.number("priority", 0)),
		NoAck:     c.flag("no-ack"),
		Exclusive: c.flag("exclusive"),
	})
	if errors.Is(err, ErrExclusive) {
		s.printf("consumer %d: %v", c.id(), err)
	}
}

func (s *script) deliver(c command) {
	for range c.number("n", 1<<30) {
		var d Delivery[string]
		if !s.m.Next(uint64(c.number("limit", 1<<30)), s, &d) {
			s.printf("no more")
			return
		}
		s.delivered(d)
	}
}

func (s *script) delivered(d Delivery[string]) {
	text := fmt.Sprintf("%d %s to %d", d.Seq, d.Payload, d.Consumer)
	text += pastOf(d)
	if d.NoAck {
		text += ", no-ack"
		s.forget(d.Seq)
	}
	s.printf("%s", text)
}

func (s *script) settle(c command, seq uint64) {
	var it Gone[string]
	var ok bool
	switch c.name {
	case "requeue":
		ok = s.m.Requeue(seq, c.flag("failed"))
	case "hold":
		ok = s.m.Hold(seq, c.flag("failed"), int64(c.number("until", 0)))
	case "bury":
		it, ok = s.m.Bury(seq)
	case "counts":
		var n Counts
		if n, ok = s.m.Outstanding(seq); ok {
			s.printf("%d: failed %d of %d, due %t", seq, n.Deliveries, n.Acquired, n.Due)
		}
	default:
		it, ok = s.m.Ack(seq)
		if ok {
			s.forget(seq)
		}
	}
	what := map[string]string{"ack": "gone", "bury": "leaving"}[c.name]
	switch {
	case !ok:
		s.printf("%d is not outstanding", seq)
	case what == "":
	case it.Payload == "":
		s.printf("%d %s, payload not in memory", seq, what)
	default:
		s.printf("%d %s %s", seq, it.Payload, what)
	}
}

// readStore reads the intervals of the load in flight.
func (s *script) readStore(limit int) {
	s.items, s.read = nil, true
	for _, w := range s.want {
		s.next = w.To
		for _, d := range s.disk {
			if d.Seq < w.From || d.Seq >= w.To || !d.stored {
				continue
			}
			if len(s.items) == limit {
				s.next = s.items[limit-1].Seq + 1
				return
			}
			s.items = append(s.items, d.LoadedItem)
		}
	}
}

// TestScripts runs testdata/*.txt and compares the output. With -rewrite it writes the output instead; read the diff.
func TestScripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal("no scripts: ", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got := runScript(string(want))
			if got == string(want) {
				return
			}
			if !*rewrite {
				t.Fatalf("%s, got:\n%s", file, got)
			}
			if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// runScript returns the script with the output it has now.
func runScript(text string) string {
	var s script
	var blocks []string
	for block := range strings.SplitSeq(strings.TrimSpace(text), "\n\n") {
		commands, _, _ := strings.Cut(block, "\n----")
		s.runBlock(commands)
		output := strings.TrimRight(s.out.String(), "\n")
		s.out.Reset()
		blocks = append(blocks, strings.TrimRight(commands+"\n----\n"+output, "\n"))
	}
	return strings.Join(blocks, "\n\n") + "\n"
}

func (s *script) runBlock(commands string) {
	for line := range strings.SplitSeq(commands, "\n") {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
			s.run(line)
		}
	}
}
