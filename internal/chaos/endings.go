package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/walrelay/walrelay/internal/localpg"
)

// dropBusySlot drops the slot, also if somebody reads it.
const dropBusySlot = `DO $$
BEGIN
    PERFORM pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = 'walrelay' AND active_pid IS NOT NULL;
    FOR i IN 1..50 LOOP
        BEGIN
            PERFORM pg_drop_replication_slot('walrelay');
            RETURN;
        EXCEPTION WHEN object_in_use THEN
            PERFORM pg_sleep(0.001);
        END;
    END LOOP;
    RAISE 'the slot is in use again';
END $$`

// endings are the faults that somebody has to mend: the relay ends with a line
// that says what is wrong and what to do.
func endings() []fault { //nolint:gocognit // a table
	ending := func(name, what, line, doctor string, do func(context.Context, *World) error) fault {
		return fault{
			name: name, settings: []string{onSingle}, alone: true, what: what, then: "the relay ends with 1 and one clear line",
			do: func(ctx context.Context, w *World, _ *rand.Rand) error {
				w.relays[0].ends, w.judged = true, true
				if err := do(ctx, w); err != nil {
					return err
				}
				if err := w.ended(ctx, line); err != nil {
					return err
				}
				return w.diagnosed(ctx, doctor)
			},
		}
	}
	return []fault{
		ending("slot-dropped", "the slot is dropped while the relay is down", `slot "walrelay" does not exist`, "slot_missing", func(ctx context.Context, w *World) error {
			w.relays[0].kill()
			if err := until(ctx, 10*time.Second, "the slot is dropped", func(ctx context.Context) error {
				return w.exec(ctx, "SELECT pg_drop_replication_slot('walrelay')")
			}); err != nil {
				return err
			}
			return w.relays[0].start("")
		}),
		ending("slot-dropped-under-load", "the walsender is terminated and the slot is dropped before the relay is back", `slot "walrelay" does not exist`, "slot_missing", func(ctx context.Context, w *World) error {
			return until(ctx, 10*time.Second, "the slot is dropped", func(ctx context.Context) error { return w.exec(ctx, dropBusySlot) })
		}),
		ending("slot-lost", "Postgres gives up the slot, as max_slot_wal_keep_size says, while NATS does not answer", `slot.*(lost|invalidat)`, "slot_lost", func(ctx context.Context, w *World) error {
			w.nats[0].stop()
			if err := w.exec(ctx, "ALTER SYSTEM SET max_slot_wal_keep_size = '16MB'", "ALTER SYSTEM SET max_wal_size = '32MB'", "SELECT pg_reload_conf()"); err != nil {
				return err
			}
			return until(ctx, 60*time.Second, "the slot is lost", func(ctx context.Context) error {
				if err := w.exec(ctx, "SELECT pg_logical_emit_message(false, 'somebody', repeat('x', 8000000))", "SELECT pg_switch_wal()", "CHECKPOINT"); err != nil {
					return err
				}
				var status string
				if err := w.query(ctx, &status, "SELECT wal_status FROM pg_replication_slots WHERE slot_name = $1", slotName); err != nil {
					return err
				}
				if status != "lost" {
					return errors.New("it is " + status)
				}
				return nil
			})
		}),
		ending("publication-dropped", "the publication is dropped while events flow", `publication "walrelay"`, "publication_missing", func(ctx context.Context, w *World) error {
			return w.exec(ctx, "DROP PUBLICATION walrelay")
		}),
		ending("table-left-publication", "the outbox table is taken out of the publication", `publication "walrelay"`, "outbox_unpublished", func(ctx context.Context, w *World) error {
			return w.exec(ctx, "ALTER PUBLICATION walrelay DROP TABLE public.outbox")
		}),
		ending("table-replaced", "the outbox table is renamed, and another one of its name is made, while events flow", `publication "walrelay" does not have outbox table public.outbox`, "outbox_unpublished", func(ctx context.Context, w *World) error {
			return w.exec(ctx, "BEGIN; ALTER TABLE public.outbox RENAME TO outbox_before; CREATE TABLE public.outbox (LIKE public.outbox_before INCLUDING ALL); COMMIT")
		}),
		ending("stream-sealed", "the stream is sealed under load", `sealed`, "stream_sealed", func(ctx context.Context, w *World) error {
			return w.changeStream(ctx, func(c *jetstream.StreamConfig) { c.Sealed = true })
		}),
		ending("database-restored", "Postgres is replaced by a copy of its data of an hour ago", `went back in time|A database was restored`, "database_behind_stream", func(ctx context.Context, w *World) error {
			w.writers.hold()
			if err := w.caughtUp(ctx, 30*time.Second); err != nil {
				return err
			}
			if err := w.stopPostgres(ctx, localpg.Fast, 15*time.Second); err != nil {
				return err
			}
			w.relays[0].kill()
			old := w.pg
			restored, err := localpg.Start(ctx, localpg.Options{Copy: old})
			if err != nil {
				return err
			}
			w.spare = restored
			if err := w.startPostgres(ctx); err != nil {
				return err
			}
			if err := w.relays[0].start(""); err != nil {
				return err
			}
			w.writers.resume()
			if err := w.flowing(ctx, 500); err != nil {
				return err
			}
			w.writers.hold()
			if err := w.caughtUp(ctx, 30*time.Second); err != nil {
				return err
			}
			w.relays[0].kill()
			if err := w.net.turnPostgres(ctx, restored.Port()); err != nil {
				return err
			}
			return w.relays[0].start("")
		}),
		ending("another-database", "another Postgres answers at the address", `slot "walrelay" does not exist|is not a|does not exist`, "slot_missing", func(ctx context.Context, w *World) error {
			other, err := localpg.Start(ctx, localpg.Options{})
			if err != nil {
				return err
			}
			w.spare = other
			return w.net.turnPostgres(ctx, other.Port())
		}),
		ending("synchronous-standby-names", "synchronous_standby_names is '*', so that every commit would wait for NATS", `synchronous_standby_names`, "synchronous_standby_names", func(ctx context.Context, w *World) error {
			w.relays[0].kill()
			if err := w.exec(ctx, "ALTER SYSTEM SET synchronous_standby_names = '*'", "SELECT pg_reload_conf()"); err != nil {
				return err
			}
			return w.relays[0].start("")
		}),
		{
			name: "streams-that-break-promises", settings: []string{onSingle}, alone: true,
			what: "the relay is started with streams that forget, do not acknowledge, or write by themselves",
			then: "it refuses each, with its reason",
			do:   refusedStreams,
		},
		{
			name: "idle-table-busy-database", settings: []string{onSingle}, alone: true,
			what: "nobody writes events, and another database of the cluster writes a lot",
			then: "the slot advances",
			do: func(ctx context.Context, w *World, _ *rand.Rand) error {
				w.writers.hold()
				if err := w.exec(ctx, "CREATE DATABASE busy"); err != nil {
					return err
				}
				for range 3 {
					if err := w.exec(ctx, "SELECT pg_logical_emit_message(false, 'somebody', repeat('x', 5000000))"); err != nil {
						return err
					}
					if err := w.caughtUp(ctx, 15*time.Second); err != nil {
						return err
					}
				}
				return nil
			},
		},
		{
			name: "foreign-publisher", settings: []string{onSingle}, alone: true,
			what: "somebody else publishes into the stream that walrelay owns, and the relay is killed and cut off now and then",
			then: "the relay says so and goes on; nothing is lost or doubled",
			says: []string{"somebody else writes into a stream that walrelay owns"},
			do: func(ctx context.Context, w *World, rng *rand.Rand) error {
				w.reorders, w.foreign = true, true
				for range 40 {
					for range 1 + rng.IntN(10) {
						if err := w.nc.PublishMsg(&nats.Msg{Subject: "events.chaos.foreign", Data: []byte("not an event")}); err != nil {
							return err
						}
						sleep(ctx, between(rng, 0, 10*time.Millisecond))
					}
					switch rng.IntN(4) {
					case 0:
						w.relays[0].kill()
						if err := w.relays[0].start(""); err != nil {
							return err
						}
					case 1:
						for _, cut := range []bool{true, false} {
							if err := w.net.cut(ctx, w.nats[0].name, cut); err != nil {
								return err
							}
						}
					default:
					}
					sleep(ctx, between(rng, 0, 200*time.Millisecond))
				}
				return w.flowing(ctx, 100)
			},
		},
		{
			name: "wal-disk-full", settings: []string{onSmall}, alone: true, root: true,
			what: "NATS is away until the disk of the WAL is full and Postgres crashes; then there is more room",
			then: "everything is published when both are back",
			do: func(ctx context.Context, w *World, _ *rand.Rand) error {
				w.nats[0].stop()
				if err := until(ctx, 60*time.Second, "the disk is full", func(ctx context.Context) error {
					err := w.exec(ctx, "SELECT pg_logical_emit_message(false, 'somebody', repeat('x', 5000000))")
					if err == nil {
						return errors.New("it is not")
					}
					return nil
				}); err != nil {
					return err
				}
				sleep(ctx, time.Second)
				if err := resize(ctx, w.volumes[0], 4*w.setting.walSize); err != nil {
					return err
				}
				if err := w.pg.Kill(); err != nil {
					return err
				}
				if err := w.startPostgres(ctx); err != nil {
					return err
				}
				return w.nats[0].start(ctx)
			},
		},
		{
			name: "per-subject-limit", settings: []string{onSingle}, alone: true,
			what: "the stream takes only so many messages of one subject, and more later",
			then: "events of that subject go to the delay table and are published later; the others flow",
			says: []string{"maximum messages per subject exceeded"},
			do: func(ctx context.Context, w *World, rng *rand.Rand) error {
				w.writers.hold()
				if err := w.writers.idle(ctx); err != nil {
					return err
				}
				if err := w.caughtUp(ctx, 30*time.Second); err != nil {
					return err
				}
				if err := w.readToTheEnd(ctx); err != nil {
					return err
				}
				stream, err := w.js.Stream(ctx, streamName)
				if err != nil {
					return err
				}
				if err := stream.Purge(ctx); err != nil {
					return err
				}
				if err := w.changeStream(ctx, func(c *jetstream.StreamConfig) {
					c.Discard, c.DiscardNewPerSubject, c.MaxMsgs, c.MaxMsgsPerSubject = jetstream.DiscardNew, true, 10_000_000, 5
				}); err != nil {
					return err
				}
				a := &application{number: writerCount, rng: rng}
				for range 10 {
					if err := w.writeOne(ctx, a, patient); err != nil {
						return err
					}
				}
				sleep(ctx, 2*time.Second)
				return w.changeStream(ctx, func(c *jetstream.StreamConfig) {
					c.Discard, c.DiscardNewPerSubject, c.MaxMsgs, c.MaxMsgsPerSubject = jetstream.DiscardOld, false, -1, -1
				})
			},
		},
	}
}

// diagnosed checks that doctor names what is wrong.
func (w *World) diagnosed(ctx context.Context, id string) error {
	out, err := w.command(ctx, "doctor", "--json") // it ends with 1
	var failed []string
	lines(out, func(line string) {
		var r struct {
			ID     string `json:"id"`
			Status string `json:"status"`
		}
		if json.Unmarshal([]byte(line), &r) == nil && r.Status == "fail" {
			failed = append(failed, r.ID)
		}
	})
	if err == nil {
		return fmt.Errorf("doctor ends with 0, and says %q", out)
	}
	if !slices.Contains(failed, id) {
		return fmt.Errorf("doctor finds %v, want %s", failed, id)
	}
	return nil
}

// ended waits until the relay has ended with 1, and checks what it said last.
func (w *World) ended(ctx context.Context, pattern string) error {
	r := w.relays[0]
	waiting, cancel := context.WithTimeout(ctx, 60*time.Second)
	defer cancel()
	code, err := r.process.Wait(waiting)
	if err != nil {
		return fmt.Errorf("%w; it said last:\n%s", err, r.log.Tail(5))
	}
	last := r.log.Tail(1)
	w.hist.Add(r.name, "ended", "code", code, "line", last)
	switch {
	case code != 1:
		return fmt.Errorf("the relay ended with %d, not 1, and said last:\n%s", code, last)
	case strings.Contains(r.log.Since(0), "panic:"):
		return fmt.Errorf("the relay panicked:\n%s", r.log.Tail(20))
	case !regexp.MustCompile(pattern).MatchString(last):
		return fmt.Errorf("the relay's last line says nothing like %q:\n%s", pattern, last)
	}
	return nil
}

// refusedStreams starts the relay with each kind of stream that it must not
// publish to.
func refusedStreams(ctx context.Context, w *World, _ *rand.Rand) error {
	w.judged = true
	w.relays[0].ends = true
	if err := w.relays[0].stop(ctx); err != nil {
		return err
	}
	w.relays[0].ends = true
	stream, err := w.js.Stream(ctx, streamName)
	if err != nil {
		return err
	}
	usual := stream.CachedInfo().Config
	for _, c := range []struct {
		change func(*jetstream.StreamConfig)
		line   string
	}{
		{func(c *jetstream.StreamConfig) { c.Storage = jetstream.MemoryStorage }, "memory"},
		{func(c *jetstream.StreamConfig) { c.NoAck = true }, "no_ack"},
		{func(c *jetstream.StreamConfig) { c.AllowMsgSchedules = true }, "schedules"},
		{func(c *jetstream.StreamConfig) { c.PersistMode = jetstream.AsyncPersistMode }, "persist_mode"},
		{func(c *jetstream.StreamConfig) { c.Subjects = []string{"something.else"} }, "subjects"},
	} {
		if err := w.js.DeleteStream(ctx, streamName); err != nil {
			return err
		}
		config := usual
		c.change(&config)
		if err := w.recreate(ctx, config); err != nil {
			return fmt.Errorf("making a stream (%s): %w", c.line, err)
		}
		if err := w.relays[0].start(""); err != nil {
			return err
		}
		w.relays[0].ends = true
		if err := w.ended(ctx, c.line); err != nil {
			return err
		}
	}
	return nil
}

// recreate makes a stream of a name that has just been deleted: the server may not
// have removed the store of the one before yet, and says so by this code.
func (w *World) recreate(ctx context.Context, config jetstream.StreamConfig) error {
	const storeCannotBeMade = 10049
	for deadline := time.Now().Add(10 * time.Second); ; {
		_, err := w.js.CreateStream(ctx, config)
		apiErr, ok := errors.AsType[*jetstream.APIError](err)
		if err == nil || !ok || apiErr.ErrorCode != storeCannotBeMade || time.Now().After(deadline) {
			return err
		}
		sleep(ctx, 50*time.Millisecond)
	}
}
