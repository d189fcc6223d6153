// Package service answers questions over NATS, as a micro service: PING, INFO and STATS
// under $SRV, and the status document on a subject of its own.
//
// Input: how to reach NATS, and a function that returns the document. Output: answers, over
// a connection of its own, so that neither its errors nor its rights touch the relay's.
// Promises: whatever happens to it, the relay goes on. The package must not import what
// runs a relay.
package service

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"
	"github.com/rs/zerolog"

	"github.com/walrelay/walrelay/config"
	"github.com/walrelay/walrelay/internal/connect"
	"github.com/walrelay/walrelay/internal/wait"
)

// Name is what the service is called in $SRV, and of its connection.
const Name = "walrelay"

// Subject is where a relay of a slot answers with its status document.
func Subject(slot string) string { return Name + ".status." + slot }

// Options say what is served.
type Options struct {
	NATS config.NATS
	Slot string
	// Version is that of the document.
	Version int
	// Status returns the document. It may block for less than 10 s.
	Status func(context.Context) any
	Log    zerolog.Logger
}

const (
	// again is how long after a failure the service is offered again.
	again = 10 * time.Second
	// drainPatience bounds the last answers.
	drainPatience = time.Second
)

// Run answers until the context ends. It blocks. What goes wrong is logged, and tried again:
// a lack of rights is said once.
func Run(ctx context.Context, o Options) {
	said := ""
	for {
		err := serve(ctx, o)
		if ctx.Err() != nil {
			return
		}
		if err != nil && err.Error() != said {
			said = err.Error()
			o.Log.Warn().Err(err).Msg("the status is not served over NATS; trying again")
		}
		if wait.For(ctx, again) != nil {
			return
		}
	}
}

// serve offers the service over one connection, until the context ends or it is stopped.
func serve(ctx context.Context, o Options) error {
	ended := make(chan error, 2)
	nc, err := connect.NATS(ctx, o.NATS, nats.Name(Name+" status"), nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
		if errors.Is(err, nats.ErrPermissionViolation) {
			offer(ended, err)
		}
	}))
	if err != nil {
		return err
	}
	defer nc.Close()
	version := fmt.Sprintf("%d.0.0", o.Version)
	s, err := micro.AddService(nc, micro.Config{
		Name: Name, Version: version, Description: "Streams a Postgres outbox to JetStream",
		Metadata: map[string]string{"slot": o.Slot},
		// Every relay answers for itself, also one that waits.
		QueueGroupDisabled: true,
		DoneHandler:        func(micro.Service) { offer(ended, errors.New("the service was stopped")) },
	})
	if err != nil {
		return fmt.Errorf("offering a service: %w", err)
	}
	handler := func(req micro.Request) {
		text, err := json.Marshal(o.Status(ctx))
		if err == nil && int64(len(text)) > nc.MaxPayload() {
			err = fmt.Errorf("the document has %d bytes, and max_payload of the NATS server is %d: ask /status over HTTP", len(text), nc.MaxPayload())
		}
		if err != nil {
			_ = req.Error("500", err.Error(), nil) // who asked is gone
			return
		}
		_ = req.Respond(text, micro.WithHeaders(micro.Headers{"Content-Type": {"application/json"}})) // who asked is gone
	}
	if err := s.AddEndpoint("status", micro.HandlerFunc(handler), micro.WithEndpointSubject(Subject(o.Slot))); err != nil {
		return fmt.Errorf("offering a service: %w", err)
	}
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
		drained, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainPatience)
		defer cancel()
		_ = s.Stop()                     // the connection is closed anyway
		_ = nc.FlushWithContext(drained) // the last answers
		return nil
	}
}

// offer sends without blocking.
func offer(c chan<- error, err error) {
	select {
	case c <- err:
	default:
	}
}
