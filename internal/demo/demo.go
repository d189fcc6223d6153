// Package demo shows the whole way of an event with nothing to set up: a
// throw-away Postgres and nats-server, the relay, a small application that
// writes events, a consumer that prints what arrives, and a handler that bills orders,
// each once, and parks one that it cannot bill.
package demo

import (
	"context"
	crand "crypto/rand"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/rs/zerolog"
	"golang.org/x/sync/errgroup"

	"github.com/walrelay/walrelay"
	"github.com/walrelay/walrelay/config"
	"github.com/walrelay/walrelay/internal/localnats"
	"github.com/walrelay/walrelay/internal/localpg"
	"github.com/walrelay/walrelay/internal/web"
	"github.com/walrelay/walrelay/outbox"
)

// Options of a demo.
type Options struct {
	// PostgresURL is a database to use instead of a throw-away server.
	PostgresURL string
	// Pause is the time between two transactions of the application; default
	// half a second.
	Pause time.Duration
	// Out is where everything is printed.
	Out io.Writer
	// Log is the relay's.
	Log zerolog.Logger
}

// Run shows the demo until the context ends, and then removes what it made.
func Run(ctx context.Context, opts Options) (err error) {
	out := &printer{w: opts.Out}
	if opts.Pause <= 0 {
		opts.Pause = 500 * time.Millisecond
	}
	if opts.PostgresURL == "" {
		out.linef("Starting a throw-away Postgres …")
		cluster, err := localpg.Start(ctx, localpg.Options{Settings: map[string]string{"max_slot_wal_keep_size": "1GB"}})
		if err != nil {
			return fmt.Errorf("starting a throw-away Postgres: %w", err)
		}
		defer func() { err = errors.Join(err, cluster.Close()) }()
		opts.PostgresURL = cluster.URL("postgres")
	}
	server, err := localnats.Start(localnats.Options{})
	if err != nil {
		return fmt.Errorf("starting a throw-away nats-server: %w", err)
	}
	defer func() { err = errors.Join(err, server.Close()) }()

	cfg := walrelay.Config{
		Postgres: config.Postgres{URL: opts.PostgresURL},
		NATS:     config.NATS{URL: server.URL()},
		Console:  config.Console{Token: crand.Text()},
	}
	report, err := walrelay.Setup(ctx, cfg)
	if err != nil {
		return fmt.Errorf("preparing Postgres and NATS: %w", err)
	}
	for _, item := range report.Items {
		out.linef("  %-12s %-16s %s", item.Kind, item.Name, item.Action)
	}
	if err := prepare(ctx, opts.PostgresURL); err != nil {
		return err
	}
	relay, err := walrelay.New(cfg, walrelay.Options{Log: opts.Log})
	if err != nil {
		return fmt.Errorf("preparing the relay: %w", err)
	}
	listener, err := listen(ctx)
	if err != nil {
		return err
	}
	out.linef(`
See what it does, and sign in to try again what has failed, in a browser:

  http://%s/console/
  token: %s

Join in, from other terminals:

  psql '%s'
  nats --server %s subscribe 'events.>'

and write an event of your own:

  INSERT INTO outbox (event_type, source, data) VALUES ('user.waved', '/you', '{"hello": "world"}');

Ctrl-C ends the demo and removes what it made.
`, listener.Addr(), cfg.Console.Token, opts.PostgresURL, server.URL())

	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return relay.Run(ctx) })
	group.Go(func() error { return web.Serve(ctx, listener, relay.Handler()) })
	group.Go(func() error { return consume(ctx, server.URL(), out) })
	group.Go(func() error { return handle(ctx, opts, server.URL(), out) })
	group.Go(func() error { return produce(ctx, opts, out) })
	if err := group.Wait(); err != nil && !errors.Is(err, context.Canceled) {
		return err
	}
	out.linef("\nThe demo has ended.")
	return nil
}

// listen listens where a relay does by default, or on any port if that one is taken.
func listen(ctx context.Context) (net.Listener, error) {
	listener, err := web.Listen(ctx, walrelay.Config{}.WithDefaults().HTTP)
	if err != nil {
		return web.Listen(ctx, config.HTTP{Addr: "127.0.0.1:0"})
	}
	return listener, nil
}

// printer prints whole lines from several goroutines.
type printer struct {
	mu sync.Mutex
	w  io.Writer
}

func (p *printer) linef(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	_, _ = fmt.Fprintf(p.w, format+"\n", args...)
}

// consume prints what arrives in the stream.
func consume(ctx context.Context, url string, out *printer) error {
	nc, err := nats.Connect(url, nats.Name("walrelay demo consumer"))
	if err != nil {
		return fmt.Errorf("connecting the consumer: %w", err)
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		return fmt.Errorf("connecting the consumer: %w", err)
	}
	consumer, err := js.OrderedConsumer(ctx, "EVENTS", jetstream.OrderedConsumerConfig{})
	if err != nil {
		return fmt.Errorf("consuming the stream: %w", err)
	}
	consuming, err := consumer.Consume(func(msg jetstream.Msg) {
		sequence := uint64(0)
		if meta, err := msg.Metadata(); err == nil {
			sequence = meta.Sequence.Stream
		}
		out.linef("    consumer     got %-28s #%-5d %s", msg.Subject(), sequence, msg.Data())
	})
	if err != nil {
		return fmt.Errorf("consuming the stream: %w", err)
	}
	<-ctx.Done()
	consuming.Stop()
	<-consuming.Closed()
	return nil
}

// produce is the application: it writes transactions with one to three events,
// and rolls some of them back.
func produce(ctx context.Context, opts Options, out *printer) error {
	conn, err := pgx.Connect(ctx, opts.PostgresURL)
	if err != nil {
		return fmt.Errorf("connecting the application: %w", err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	ticker := time.NewTicker(opts.Pause)
	defer ticker.Stop()
	for n := 1; ; n++ {
		types, err := transaction(ctx, conn, n)
		switch {
		case errors.Is(err, errChangedMind):
			out.linef("application        rolled back %s", strings.Join(types, ", "))
		case ctx.Err() != nil:
			return nil
		case err != nil:
			return fmt.Errorf("writing events: %w", err)
		default:
			out.linef("application        committed %s", strings.Join(types, ", "))
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return nil
		}
	}
}

var errChangedMind = errors.New("rolled back")

// shop publishes the application's events.
var shop = outbox.Outbox{Source: "/shop"} //nolint:gochecknoglobals // never written

func transaction(ctx context.Context, conn *pgx.Conn, n int) (types []string, err error) {
	err = pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		user := rand.IntN(100)
		if n == closedOrder || n < closedOrder && user == closedUser { // it is the first one of that user
			user = closedUser + closedOrder - n
		}
		order := Order{ID: n, User: user, Amount: 1 + rand.IntN(200)}
		key := strconv.Itoa(user)
		events := []outbox.Event{
			{Type: "user.registered", Key: key, Subject: key, Data: map[string]int{"user": user}},
			{Type: "order.placed", Key: key, Subject: key, Data: order},
			{Type: "order.paid", Key: key, Subject: key, Data: order},
		}
		first := rand.IntN(len(events))
		events = events[first : first+1+rand.IntN(len(events)-first)]
		if n == closedOrder {
			events = []outbox.Event{{Type: "order.paid", Key: key, Subject: key, Data: order}}
		}
		for _, ev := range events {
			types = append(types, ev.Type)
		}
		if _, err := shop.PublishAll(ctx, tx, events); err != nil {
			return err
		}
		if n != closedOrder && rand.IntN(5) == 0 {
			return errChangedMind
		}
		return nil
	})
	return types, err
}
