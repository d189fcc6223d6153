package router

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/rs/zerolog"
	"go.uber.org/goleak"

	"github.com/walrelay/walrelay/event"
	"github.com/walrelay/walrelay/internal/problem"
	"github.com/walrelay/walrelay/internal/testkit"
)

func TestMain(m *testing.M) {
	if os.Getenv(serveEnv) != "" {
		if err := serve(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	goleak.VerifyTestMain(m,
		// The client's pending timers end with their connection, a little later.
		goleak.IgnoreAnyFunction("github.com/nats-io/nats%2ego.(*Conn).waitForMsgs"),
		goleak.IgnoreAnyFunction("github.com/nats-io/nats-server/v2/server.(*Server).reloadConfig"),
	)
}

// outcomes is a sink that remembers what it hears.
type outcomes struct {
	mu   sync.Mutex
	done map[uint64][]Outcome
	held []string
}

func (o *outcomes) Settled(ticket uint64, outcome Outcome, _ *event.Event, _ string, _ time.Duration) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.done[ticket] = append(o.done[ticket], outcome)
}

func (o *outcomes) Paused(_ string, reason error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if reason != nil {
		o.held = append(o.held, reason.Error())
	}
}

func (o *outcomes) count() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.done)
}

func (o *outcomes) Split(string) {}

// rig is a router on a nats-server of its own.
type rig struct {
	t        *testing.T
	nc       *nats.Conn
	js       nats.JetStreamContext
	origin   Origin
	stream   Stream
	split    bool // what a stream refuses as a batch
	noID     bool // messages have no id
	outcomes *outcomes
	delays   *delays
	router   *Router
	stop     func()
}

func newRig(t *testing.T, cfg nats.StreamConfig, configure ...func(*server.Options)) *rig {
	t.Helper()
	s := testkit.NATS(t, configure...)
	nc, err := nats.Connect(s.URL())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	js, err := nc.JetStream()
	if err != nil {
		t.Fatal(err)
	}
	cfg.Name, cfg.Subjects = "EVENTS", []string{"events.>"}
	if _, err := js.AddStream(&cfg); err != nil {
		t.Fatal(err)
	}
	r := &rig{
		t: t, nc: nc, js: js, stream: Stream{Name: "EVENTS"},
		origin: Origin{SystemID: "7", Slot: "s", Timeline: 1, WAL: 1 << 40},
	}
	t.Cleanup(func() { r.end() })
	return r
}

// prepare makes a router that has no events yet.
func (r *rig) prepare() {
	r.t.Helper()
	rules, err := NewRules(nil, Rule{Stream: "EVENTS", Subject: "events.{type}"})
	if err != nil {
		r.t.Fatal(err)
	}
	r.outcomes = &outcomes{done: map[uint64][]Outcome{}}
	r.delays = &delays{}
	r.router = New(r.nc, Config{
		Streams: []Stream{r.stream}, Rules: rules, Origin: r.origin, MaxInFlight: 64, MaxInFlightBytes: 1 << 24,
		SplitRefused: r.split, OmitMessageID: r.noID, AckTimeout: 2 * time.Second, Observer: r.outcomes, Parker: r.delays, Log: zerolog.Nop(),
	})
}

// start opens a router and runs it.
func (r *rig) start(recorded map[string]StreamState) {
	r.t.Helper()
	r.prepare()
	if err := r.router.Open(r.t.Context(), recorded); err != nil {
		r.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	router := r.router
	go func() { ended <- router.Run(ctx) }()
	r.stop = func() {
		cancel()
		if err := <-ended; err != nil {
			r.t.Errorf("the router ended: %v", err)
		}
		if err := router.Close(); err != nil {
			r.t.Error(err)
		}
	}
}

func (r *rig) end() {
	if r.stop != nil {
		r.stop()
		r.stop = nil
	}
}

// at makes the event of a position.
func at(lsn uint64, index uint32) *event.Event {
	return &event.Event{
		Position: event.Position{CommitLSN: lsn, Index: index},
		ID:       fmt.Sprintf("id-%d-%d", lsn, index), Type: "order.created", Source: "/test",
		Schema: "public", Table: "outbox", Data: []byte("{}"), DataContentType: "application/json", MaxRetries: -1,
	}
}

// publish publishes events with their place in the list as tickets.
func (r *rig) publish(events ...*event.Event) {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), 20*time.Second)
	defer cancel()
	for i, ev := range events {
		if err := r.router.Publish(ctx, Flight{Event: ev, Ticket: uint64(i)}); err != nil {
			r.t.Fatalf("publishing event %d: %v", i, err)
		}
	}
}

func (r *rig) await(what string, check func() bool) {
	r.t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for !check() {
		if time.Now().After(deadline) {
			r.t.Fatalf("waited 20s until %s", what)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

func (r *rig) awaitOutcomes(n int) {
	r.t.Helper()
	r.await(fmt.Sprintf("%d events are settled", n), func() bool { return r.outcomes.count() >= n })
	r.outcomes.mu.Lock()
	defer r.outcomes.mu.Unlock()
	for ticket, list := range r.outcomes.done {
		if len(list) != 1 {
			r.t.Errorf("event %d has the outcomes %v, want one", ticket, list)
		}
	}
}

// ids lists the message IDs of the stream, in its order.
func (r *rig) ids() []string {
	r.t.Helper()
	info, err := r.js.StreamInfo("EVENTS")
	if err != nil {
		r.t.Fatal(err)
	}
	var ids []string
	if info.State.Msgs == 0 {
		return nil
	}
	for seq := info.State.FirstSeq; seq <= info.State.LastSeq; seq++ {
		msg, err := r.js.GetMsg("EVENTS", seq)
		if errors.Is(err, nats.ErrMsgNotFound) {
			continue
		}
		if err != nil {
			r.t.Fatal(err)
		}
		ids = append(ids, strings.TrimPrefix(msg.Header.Get(nats.MsgIdHdr), "/test "))
	}
	return ids
}

func (r *rig) wantIDs(want ...string) {
	r.t.Helper()
	if got := strings.Join(r.ids(), " "); got != strings.Join(want, " ") {
		r.t.Errorf("the stream has %s, want %s", got, strings.Join(want, " "))
	}
}

func TestWriter_StoresInOrderWithPositions(t *testing.T) {
	r := newRig(t, nats.StreamConfig{})
	r.start(nil)
	r.publish(at(100, 0), at(100, 1), at(200, 0))
	r.awaitOutcomes(3)
	r.wantIDs("id-100-0", "id-100-1", "id-200-0")
	msg, err := r.js.GetMsg("EVENTS", 2)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := msg.Header.Get(event.PositionHeader), "0000000000000064.00000001 1 7/s"; got != want {
		t.Errorf("the second message has %s %q, want %q", event.PositionHeader, got, want)
	}
	if got := r.router.Progress()["EVENTS"]; got.LastSequence != 3 || got.Position != at(200, 0).Position.String() {
		t.Errorf("the progress is %+v, want sequence 3 and the last position", got)
	}
}

func TestWriter_SkipsReplay(t *testing.T) {
	r := newRig(t, nats.StreamConfig{Duplicates: 100 * time.Millisecond})
	r.start(nil)
	r.publish(at(100, 0), at(100, 1))
	r.awaitOutcomes(2)
	r.end()
	stored := time.Now()
	r.await("the duplicate window is long over", func() bool { return time.Since(stored) > 400*time.Millisecond })
	r.start(map[string]StreamState{"EVENTS": {Created: r.created(), LastSequence: 2, Position: at(100, 1).Position.String()}})
	r.publish(at(100, 0), at(100, 1), at(200, 0))
	r.awaitOutcomes(3)
	if got := r.outcomes.done[0][0]; got != AlreadyStored {
		t.Errorf("the first event of the replay is %s, want already_stored", got)
	}
	if got := r.outcomes.done[2][0]; got != Published {
		t.Errorf("the event after the replay is %s, want published", got)
	}
}

func (r *rig) created() time.Time {
	info, err := r.js.StreamInfo("EVENTS")
	if err != nil {
		r.t.Fatal(err)
	}
	return info.Created
}

// Where consumers remove what they have read, the last message is gone: the
// sequences since the recorded one say how many events the stream has had.
func TestWriter_CountsConsumedMessages(t *testing.T) {
	r := newRig(t, nats.StreamConfig{})
	r.start(nil)
	r.publish(at(100, 0), at(100, 1), at(200, 0))
	r.awaitOutcomes(3)
	r.end()
	if err := r.js.PurgeStream("EVENTS"); err != nil {
		t.Fatal(err)
	}
	r.start(map[string]StreamState{"EVENTS": {Created: r.created(), LastSequence: 1, Position: at(100, 0).Position.String()}})
	r.publish(at(100, 0), at(100, 1), at(200, 0), at(300, 0))
	r.awaitOutcomes(4)
	r.wantIDs("id-300-0")
}

// A relay that has lost its slot stores what it still has, ahead of the one
// that has taken over and reads the same events.
func TestWriter_LateMessagesOfEarlierSession(t *testing.T) {
	r := newRig(t, nats.StreamConfig{Duplicates: 100 * time.Millisecond})
	r.start(nil)
	r.publish(at(100, 0))
	r.awaitOutcomes(1)
	ahead, stop := r.router, r.stop
	r.start(nil)
	defer stop()
	for i := range uint32(20) {
		if err := ahead.Publish(t.Context(), Flight{Event: at(200, i), Ticket: uint64(1 + i)}); err != nil {
			t.Fatal(err)
		}
	}
	r.await("the relay ahead has stored its events", func() bool { return len(r.ids()) == 21 })
	r.await("the duplicate window has passed", func() bool {
		info, err := r.js.StreamInfo("EVENTS")
		return err == nil && time.Since(info.State.LastTime) > 200*time.Millisecond
	})
	events := []*event.Event{at(100, 0)}
	want := []string{"id-100-0"}
	for i := range uint32(20) {
		events = append(events, at(200, i))
		want = append(want, fmt.Sprintf("id-200-%d", i))
	}
	// The first one finds out; the others come while and after it does.
	r.publish(events[:2]...)
	r.awaitOutcomes(2)
	for i, ev := range append(events[2:], at(300, 0)) {
		if err := r.router.Publish(t.Context(), Flight{Event: ev, Ticket: uint64(2 + i)}); err != nil {
			t.Fatal(err)
		}
	}
	r.awaitOutcomes(22)
	r.wantIDs(append(want, "id-300-0")...)
}

// The refused event's prediction comes true for the next one, because a message
// of somebody else stands in its place.
func TestWriter_ForeignMessageTakesThePlace(t *testing.T) {
	r := newRig(t, nats.StreamConfig{})
	r.start(nil)
	if _, err := r.js.Publish("events.foreign", nil, nats.MsgId("foreign")); err != nil {
		t.Fatal(err)
	}
	var events []*event.Event
	for i := range uint32(20) {
		events = append(events, at(100, i))
	}
	r.publish(events...)
	r.awaitOutcomes(20)
	times := map[string]int{}
	for _, id := range r.ids() {
		times[id]++
	}
	for _, ev := range events {
		if times[ev.ID] != 1 {
			t.Errorf("event %s is in the stream %d times, want once", ev.ID, times[ev.ID])
		}
	}
}

// A relay died before it could publish the event whose place was taken, and after later ones were
// stored. Their last one does not stand for all before it.
func TestWriter_ForeignMessageTakesThePlaceBeforeACrash(t *testing.T) {
	r := newRig(t, nats.StreamConfig{Duplicates: 100 * time.Millisecond})
	r.start(nil)
	r.publish(at(100, 0))
	r.awaitOutcomes(1)
	before := r.router.Progress()
	r.end()
	if _, err := r.js.Publish("events.foreign", nil, nats.MsgId("foreign")); err != nil {
		t.Fatal(err)
	}
	for i := range uint32(3) { // as the relay writes them
		r.store(at(200, i+1))
	}
	r.start(before)
	r.publish(at(100, 0), at(200, 0))
	r.awaitOutcomes(2)
	// It dies again, and has not seen the others; what is recorded is of before.
	after := r.router.Progress()
	if sequence := after["EVENTS"].LastSequence; sequence != 1 {
		t.Errorf("while events that may be missing are still to come, sequence %d is recorded", sequence)
	}
	r.end()
	r.await("the duplicate window has passed", func() bool {
		info, err := r.js.StreamInfo("EVENTS")
		return err == nil && time.Since(info.State.LastTime) > 200*time.Millisecond
	})
	r.start(after)
	r.publish(at(100, 0), at(200, 0), at(200, 1), at(200, 2), at(200, 3), at(300, 0))
	r.awaitOutcomes(6)
	if sequence := r.router.Progress()["EVENTS"].LastSequence; sequence != 7 {
		t.Errorf("sequence %d is recorded, want 7", sequence)
	}
	r.wantIDs("id-100-0", "foreign", "id-200-1", "id-200-2", "id-200-3", "id-200-0", "id-300-0")
	msg, err := r.js.GetMsg("EVENTS", 6)
	if err != nil {
		t.Fatal(err)
	}
	if position := msg.Header.Get(event.PositionHeader); !strings.HasSuffix(position, event.LateSuffix) {
		t.Errorf("the event that follows out of order says %q", position)
	}
}

// store stores an event as the router does.
func (r *rig) store(ev *event.Event) {
	r.t.Helper()
	msg := nats.NewMsg("events." + ev.Type)
	msg.Header.Set(nats.MsgIdHdr, "/test "+ev.ID)
	msg.Header.Set(event.PositionHeader, string(r.origin.appendPosition(nil, ev.Position)))
	if _, err := r.js.PublishMsg(msg); err != nil {
		r.t.Fatal(err)
	}
}

// delays stands for the delay table: it remembers what it was given.
type delays struct {
	mu     sync.Mutex
	failed []string // ID of an event, and why
	behind []string // IDs
	held   map[string]bool
	blocks bool // what fails blocks its key
	fail   error
}

func (d *delays) Blocked(ev *event.Event) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.held[ev.PartitionKey]
}

func (d *delays) Park(_ context.Context, failed []Flight, reason error, behind []Flight) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.fail != nil {
		return d.fail
	}
	for _, f := range failed {
		d.failed = append(d.failed, f.Event.ID+" "+reason.Error())
		if d.blocks {
			if d.held == nil {
				d.held = make(map[string]bool)
			}
			d.held[f.Event.PartitionKey] = true
		}
	}
	for _, f := range behind {
		d.behind = append(d.behind, f.Event.ID)
	}
	return nil
}

func (d *delays) failures() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return strings.Join(d.failed, "\n")
}

// The stream's own domain acknowledges, and no stream of that name elsewhere.
func TestWriter_Domain(t *testing.T) {
	r := newRig(t, nats.StreamConfig{}, func(o *server.Options) { o.JetStreamDomain = "hub" })
	r.start(nil)
	r.publish(at(100, 0), at(100, 1))
	r.awaitOutcomes(2)
	r.wantIDs("id-100-0", "id-100-1")
	if got := r.router.ordered[0].acks.domain; got != "hub" {
		t.Errorf("the stream's domain is %q", got)
	}
}

// What the servers refuse goes to the delay table with the later events of its
// key, and the rest flows on in order.
func TestWriter_PoisonLeavesWithItsKey(t *testing.T) {
	for name, poison := range map[string]struct {
		stream nats.StreamConfig
		server func(*server.Options)
		spoil  func(*event.Event)
		says   string
	}{
		"larger than the stream takes": {
			stream: nats.StreamConfig{MaxMsgSize: 1000},
			spoil:  func(ev *event.Event) { ev.Data = []byte(`"` + strings.Repeat("x", 2000) + `"`) },
			says:   "message size exceeds maximum allowed",
		},
		"one too many of its subject": {
			stream: nats.StreamConfig{MaxMsgsPerSubject: 2, Discard: nats.DiscardNew, DiscardNewPerSubject: true},
			spoil:  func(ev *event.Event) { ev.Type = "order.first" },
			says:   "maximum messages per subject exceeded",
		},
		"on a subject that the user may not publish to": {
			server: mayPublish(nil, []string{"events.order.secret"}),
			spoil:  func(ev *event.Event) { ev.Type = "order.secret" },
			says:   `permits this user no message on subject "events.order.secret"`,
		},
		"more headers than a message may have": {
			server: func(o *server.Options) { o.MaxPayload = 8 << 20 },
			spoil: func(ev *event.Event) {
				ev.Extensions = []event.Attribute{{Name: "long", Value: strings.Repeat("x", 70_000)}}
			},
			says: "header size exceeds maximum allowed",
		},
	} {
		t.Run(name, func(t *testing.T) {
			var configure []func(*server.Options)
			if poison.server != nil {
				configure = append(configure, poison.server)
			}
			// The server may answer before the event behind is sent, which then
			// shows nothing.
			for range 10 {
				r := newRig(t, poison.stream, configure...)
				r.start(nil)
				events := make([]*event.Event, 9)
				for i := range events {
					events[i] = at(100, uint32(i))
					events[i].Type = fmt.Sprintf("order.n%d", i)
					events[i].PartitionKey = strconv.Itoa(i % 3)
				}
				events[0].Type, events[1].Type = "order.first", "order.first"
				poison.spoil(events[3])
				r.publish(events...)
				r.awaitOutcomes(6)
				r.await("the event has failed because "+poison.says, func() bool {
					return strings.Contains(r.delays.failures(), "id-100-3") && strings.Contains(r.delays.failures(), poison.says)
				})
				if behind := strings.Join(r.delays.behind, " "); behind == "id-100-6" {
					r.wantIDs("id-100-0", "id-100-1", "id-100-2", "id-100-4", "id-100-5", "id-100-7", "id-100-8")
					return
				} else if behind != "" {
					t.Fatalf("behind it there are %q, want id-100-6, which has its key", behind)
				}
			}
			t.Error("nothing was behind it in ten rounds, want id-100-6, which has its key")
		})
	}
}

// mayPublish has the server let everybody publish on these subjects only.
func mayPublish(allow, deny []string) func(*server.Options) {
	return func(o *server.Options) {
		o.Users = []*server.User{{Username: "u", Password: "p", Permissions: &server.Permissions{
			Publish: &server.SubjectPermission{Allow: allow, Deny: deny},
		}}}
		o.NoAuthUser = "u"
	}
}

// Where the server says that the user may publish nothing of the stream, the first event
// that is refused pauses it; where another subject is permitted, the event has failed.
func TestWriter_DeniedWhatTheServerSays(t *testing.T) {
	for name, tt := range map[string]struct {
		allow, deny []string
		outage      bool
	}{
		"everything is denied":             {nil, []string{"events.>"}, true},
		"everything and more is denied":    {nil, []string{"events.b", "events.>"}, true},
		"nothing of the stream is allowed": {[]string{"$JS.>", "$SYS.REQ.USER.INFO", "other.>"}, nil, true},
		"one subject is denied":            {nil, []string{"events.a"}, false},
		"another one is allowed":           {[]string{"$JS.>", "$SYS.REQ.USER.INFO", "events.b"}, nil, false},
		"the user may not ask":             {[]string{"$JS.>"}, nil, false},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, nats.StreamConfig{}, mayPublish(tt.allow, tt.deny))
			r.start(nil)
			ev := at(100, 0)
			ev.Type = "a"
			if err := r.router.Publish(t.Context(), Flight{Event: ev}); err != nil {
				t.Fatal(err)
			}
			r.await("the stream is paused, or the event has failed", func() bool {
				r.outcomes.mu.Lock()
				defer r.outcomes.mu.Unlock()
				r.delays.mu.Lock()
				defer r.delays.mu.Unlock()
				return strings.Contains(strings.Join(r.outcomes.held, "\n"), "permits this user no message") || len(r.delays.failed) > 0
			})
			r.delays.mu.Lock()
			defer r.delays.mu.Unlock()
			if outage := len(r.delays.failed) == 0; outage != tt.outage {
				t.Errorf("outage is %v, want %v; failed: %v", outage, tt.outage, r.delays.failed)
			}
		})
	}
}

// A permission that lacks for every subject is everybody's: the stream is paused, and
// the events do not go to the delay table one by one.
func TestWriter_DeniedEverySubjectIsAnOutage(t *testing.T) {
	r := newRig(t, nats.StreamConfig{}, mayPublish([]string{"$JS.>", "_INBOX.>"}, nil))
	r.start(nil)
	// Once it is paused, there is no room for more.
	publishing, paused := context.WithCancel(t.Context())
	published := make(chan struct{})
	go func() {
		defer close(published)
		for i := range 10 {
			ev := at(100, uint32(i))
			ev.Type = fmt.Sprintf("order.n%d", i)
			if err := r.router.Publish(publishing, Flight{Event: ev, Ticket: uint64(i)}); err != nil && publishing.Err() == nil {
				t.Errorf("publishing event %d: %v", i, err)
			}
		}
	}()
	defer func() {
		paused()
		<-published
	}()
	r.await("the stream is paused for the permission", func() bool {
		r.outcomes.mu.Lock()
		defer r.outcomes.mu.Unlock()
		return strings.Contains(strings.Join(r.outcomes.held, "\n"), "permits this user no message")
	})
	r.delays.mu.Lock()
	defer r.delays.mu.Unlock()
	if failed := len(r.delays.failed); failed >= maxDenied {
		t.Errorf("%d events have failed before the stream was paused, want fewer than %d", failed, maxDenied)
	}
}

// What cannot even be sent is not taken, and what comes after it is.
func TestWriter_PoisonBeforeSending(t *testing.T) {
	for says, spoil := range map[string]func(*event.Event){
		"maximum payload exceeded":             func(ev *event.Event) { ev.Data = make([]byte, 2<<20) },
		"its subject would be 5007 bytes long": func(ev *event.Event) { ev.Type = strings.Repeat("x", 5000) },
	} {
		t.Run(says, func(t *testing.T) {
			r := newRig(t, nats.StreamConfig{})
			r.start(nil)
			bad := at(100, 1)
			spoil(bad)
			r.publish(at(100, 0))
			err := r.router.Publish(t.Context(), Flight{Event: bad, Ticket: 1})
			if poison, ok := errors.AsType[*EventError](err); !ok || poison.Class != Poison || !strings.Contains(err.Error(), says) ||
				!strings.Contains(err.Error(), "id-100-1") || !strings.Contains(err.Error(), "public.outbox") {
				t.Errorf("want poison that names the event, its table and %q, got %v", says, err)
			}
			r.publish(at(100, 2))
			r.await("the two others are stored", func() bool { return len(r.ids()) == 2 })
			r.wantIDs("id-100-0", "id-100-2")
		})
	}
}

func TestWriter_BlockedKey(t *testing.T) {
	r := newRig(t, nats.StreamConfig{})
	r.start(nil)
	r.delays.held = map[string]bool{"k": true}
	ev := at(100, 0)
	ev.PartitionKey = "k"
	if err := r.router.Publish(t.Context(), Flight{Event: ev}); !errors.Is(err, ErrBlocked) {
		t.Errorf("want ErrBlocked, got %v", err)
	}
	if !r.router.Blocked(ev) {
		t.Error("want that the router holds the event")
	}
	r.publish(at(100, 1))
	r.awaitOutcomes(1)
	r.wantIDs("id-100-1")
}

func TestWriter_StreamOfAnotherWriter(t *testing.T) {
	r := newRig(t, nats.StreamConfig{})
	r.start(nil)
	r.publish(at(100, 0))
	r.awaitOutcomes(1)
	r.end()
	for what, change := range map[string]struct {
		origin Origin
		says   string
	}{
		"of another slot":              {Origin{SystemID: "7", Slot: "other", Timeline: 1, WAL: 1 << 40}, "belongs to another relay"},
		"of another database":          {Origin{SystemID: "8", Slot: "s", Timeline: 1, WAL: 1 << 40}, "belongs to another relay"},
		"of a database that went back": {Origin{SystemID: "7", Slot: "s", Timeline: 1, WAL: 50}, "went back in time"},
		"of a timeline that never was": {Origin{SystemID: "7", Slot: "s", Timeline: 3, Ended: map[int32]uint64{2: 500}, WAL: 1 << 40}, "is not in the history"},
	} {
		t.Run(what, func(t *testing.T) {
			r.origin = change.origin
			r.prepare()
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			err := r.router.Open(ctx, nil)
			if _, ok := problem.Find(err); !ok || !strings.Contains(err.Error(), change.says) {
				t.Errorf("opening it gives %v, want a configuration error with %q", err, change.says)
			}
			if err := r.router.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

// After a failover, positions past the end of the old timeline are other
// events.
func TestWriter_NewTimeline(t *testing.T) {
	r := newRig(t, nats.StreamConfig{})
	r.start(nil)
	r.publish(at(100, 0), at(200, 0), at(300, 0))
	r.awaitOutcomes(3)
	r.end()
	r.origin.Timeline, r.origin.Ended = 2, map[int32]uint64{1: 250}
	r.start(nil)
	renewed := at(280, 0)
	r.publish(at(200, 0), renewed)
	r.awaitOutcomes(2)
	r.wantIDs("id-100-0", "id-200-0", "id-300-0", "id-280-0")
}

// An event goes to the delay table since the stream refuses it, and then a copy that was
// under way is stored: it is not published again, however long ago that was.
func TestWriter_LateCopyOfParkedEvent(t *testing.T) {
	for _, noID := range []bool{false, true} {
		t.Run(fmt.Sprintf("without message id %v", noID), func(t *testing.T) {
			r := newRig(t, nats.StreamConfig{Duplicates: 100 * time.Millisecond, MaxMsgSize: 1000})
			r.noID = noID
			copies, err := r.nc.SubscribeSync("events.>")
			if err != nil {
				t.Fatal(err)
			}
			r.start(nil)
			large := at(200, 0)
			large.Data = []byte(`"` + strings.Repeat("x", 2000) + `"`)
			r.publish(at(100, 0), large)
			r.await("the large event is parked", func() bool { return r.delays.failures() != "" })
			if _, err := copies.NextMsg(5 * time.Second); err != nil {
				t.Fatal(err)
			}
			underWay, err := copies.NextMsg(5 * time.Second)
			if err != nil {
				t.Fatal(err)
			}
			if got := underWay.Header.Get(nats.MsgIdHdr); (got == "") != noID {
				t.Errorf("the message has the id %q", got)
			}
			info, err := r.js.StreamInfo("EVENTS")
			if err != nil {
				t.Fatal(err)
			}
			info.Config.MaxMsgSize = -1
			if _, err := r.js.UpdateStream(&info.Config); err != nil {
				t.Fatal(err)
			}
			if _, err := r.js.PublishMsg(&nats.Msg{Subject: underWay.Subject, Header: underWay.Header, Data: underWay.Data}); err != nil {
				t.Fatalf("storing the copy: %v", err)
			}
			again := at(400, 0)
			again.ID, again.Data, again.Delay = large.ID, large.Data, &event.Delay{Attempts: 1, Origin: large.Position}
			for i, ev := range []*event.Event{at(300, 0), again} {
				if err := r.router.Publish(t.Context(), Flight{Event: ev, Ticket: uint64(2 + i)}); err != nil {
					t.Fatal(err)
				}
				r.awaitOutcomes(2 + i)
			}
			if got := r.outcomes.done[3][0]; got != AlreadyStored {
				t.Errorf("the event that came back is %s, want already_stored", got)
			}
			if n := len(r.ids()); n != 3 {
				t.Errorf("the stream has %d messages, want 3", n)
			}
		})
	}
}

// Many events that the stream refuses for one reason are sent once: the others are known.
// An event that would be refused for a reason that is known fails at once, but not before an
// earlier one of its key that may fail yet: both would come back from the table, in any order.
func TestWriter_KnownRefusalWaitsForItsKey(t *testing.T) {
	r := newRig(t, nats.StreamConfig{MaxMsgSize: 1500})
	r.start(nil)
	large := func(i uint32, size int, key string) *event.Event {
		ev := at(100, i)
		ev.Data, ev.PartitionKey = []byte(`"`+strings.Repeat("x", size)+`"`), key
		return ev
	}
	publish := func(ev *event.Event) error {
		return r.router.Publish(t.Context(), Flight{Event: ev, Ticket: uint64(ev.Position.Index)})
	}
	if err := publish(large(0, 3000, "")); err != nil {
		t.Fatal(err)
	}
	r.await("it is refused, and that is learned", func() bool { return r.delays.failures() != "" && r.router.InFlight() == 0 })
	r.delays.mu.Lock()
	r.delays.blocks = true
	r.delays.mu.Unlock()
	for i := uint32(1); i < 100; i += 2 {
		key := fmt.Sprint("k", i)
		if err := publish(large(i, 2900-10*int(i), key)); err != nil { // smaller than what is known to be refused: it is sent
			t.Fatal(err)
		}
		if err := publish(large(i+1, 4000, key)); !errors.Is(err, ErrBlocked) {
			t.Fatalf("event %d fails beside an earlier one of its key: %v", i+1, err)
		}
	}
}

func TestWriter_KnownRefusalIsNotSent(t *testing.T) {
	r := newRig(t, nats.StreamConfig{MaxMsgSize: 1000})
	sent, err := r.nc.SubscribeSync("events.>")
	if err != nil {
		t.Fatal(err)
	}
	r.start(nil)
	const n = 200
	refused := 0
	for i := range uint32(n) {
		ev := at(100, i)
		if i%4 != 0 {
			ev.Data = []byte(`"` + strings.Repeat("x", 2000) + `"`)
		}
		err := r.router.Publish(t.Context(), Flight{Event: ev, Ticket: uint64(i)})
		if poison, ok := errors.AsType[*EventError](err); ok && poison.Class == Poison && strings.Contains(err.Error(), "message size exceeds maximum allowed") {
			refused++
		} else if err != nil {
			t.Fatal(err)
		}
		if i == 40 {
			r.await("the first are parked", func() bool { return r.delays.failures() != "" && r.router.InFlight() == 0 })
		}
	}
	r.await("all are stored or parked", func() bool { return len(r.ids()) == n/4 && r.router.InFlight() == 0 })
	r.delays.mu.Lock()
	parked := len(r.delays.failed)
	r.delays.mu.Unlock()
	if parked+refused != n*3/4 || refused < (n-41)*3/4 {
		t.Errorf("%d events are parked and %d refused at once, want all large ones, and those after the first at once", parked, refused)
	}
	large := 0
	for {
		msg, err := sent.NextMsg(100 * time.Millisecond)
		if err != nil {
			break
		}
		if len(msg.Data) > 2000 {
			large++
		}
	}
	if large > 41 {
		t.Errorf("%d large messages were sent, want those of the first window at most", large)
	}
}
