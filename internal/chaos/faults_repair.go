package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// repairFaults are what a stream may suffer itself: acknowledged events are
// gone. The relay ends, "walrelay repair" brings them back, and it goes on.
func repairFaults() []fault {
	losing := func(name, what string, lose func(context.Context, *World, *rand.Rand) error) fault {
		return fault{
			name: name, settings: []string{onSingle, onHandlers}, alone: true, what: what,
			then: `the relay ends with 1 and says what is missing; "walrelay repair", killed in between, brings it back, and says what it cannot`,
			says: []string{"walrelay repair --dry-run", "streaming"},
			do: func(ctx context.Context, w *World, rng *rand.Rand) error {
				if err := w.flowing(ctx, 500); err != nil {
					return err
				}
				return w.loseAndRepair(ctx, rng, func() error { return lose(ctx, w, rng) })
			},
		}
	}
	deleted := losing("stream-deleted", "the stream is deleted under load", func(ctx context.Context, w *World, _ *rand.Rand) error {
		return w.js.DeleteStream(ctx, streamName)
	})
	recreated := losing("stream-recreated", "the stream is deleted and made again under load", func(ctx context.Context, w *World, _ *rand.Rand) error {
		stream, err := w.js.Stream(ctx, streamName)
		if err != nil {
			return err
		}
		if err := w.js.DeleteStream(ctx, streamName); err != nil {
			return err
		}
		_, err = w.js.CreateStream(ctx, stream.CachedInfo().Config)
		return err
	})
	restored := losing("stream-restored", "nats-server gets its streams of some seconds ago back, from a backup", func(ctx context.Context, w *World, rng *rand.Rand) error {
		s := w.nats[0]
		s.stop()
		backup := s.store + "-backup"
		if err := os.CopyFS(backup, os.DirFS(s.store)); err != nil {
			return err
		}
		if err := s.start(ctx); err != nil {
			return err
		}
		if err := w.acknowledged(ctx, uint64(300+rng.IntN(500))); err != nil {
			return err
		}
		w.reader.stop(true)
		s.stop()
		if err := os.Rename(s.store, s.store+"-newer"); err != nil {
			return err
		}
		if err := os.Rename(backup, s.store); err != nil {
			return err
		}
		return s.start(ctx)
	})
	power := losing("power-cut", "the power of nats-server's machine is cut, and its file system has what it had written by then", func(ctx context.Context, w *World, rng *rand.Rand) error {
		return w.cutPower(ctx, rng)
	})
	power.root = true
	return []fault{deleted, recreated, restored, power}
}

// loseAndRepair has the stream lose events, waits until the relay has ended, and
// does what its last line says.
func (w *World) loseAndRepair(ctx context.Context, rng *rand.Rand, lose func() error) error {
	r := w.relays[0]
	r.ends = true
	if err := lose(); err != nil {
		return err
	}
	w.reader.stop(true)
	if err := w.endedForLoss(ctx); err != nil {
		return err
	}
	missing := strings.Contains(r.log.Tail(1), "walrelay init")
	if err := w.diagnosed(ctx, map[bool]string{true: "stream_missing", false: "stream_lost_events"}[missing]); err != nil {
		return err
	}
	if missing {
		if _, err := w.command(ctx, "init"); err != nil {
			return err
		}
	}
	if err := w.query(ctx, &w.repairedBelow, "SELECT (pg_current_wal_insert_lsn() - '0/0'::pg_lsn)::bigint"); err != nil {
		return err
	}
	if err := w.runRepair(ctx, rng); err != nil {
		return err
	}
	w.reader.again()
	if err := r.start(""); err != nil {
		return err
	}
	w.reader.stop(false)
	return w.flowing(ctx, 500)
}

// acknowledged waits until the relay has saved that the stream has taken more events: what
// it has not heard of may be lost without a loss.
func (w *World) acknowledged(ctx context.Context, more uint64) error {
	var had uint64
	if err := until(ctx, 20*time.Second, "NATS says what the stream has", func(ctx context.Context) error {
		info, err := w.streamInfo(ctx)
		if err == nil {
			had = info.State.LastSeq
		}
		return err
	}); err != nil {
		return err
	}
	return until(ctx, 60*time.Second, fmt.Sprintf("%d more events are acknowledged", more), func(ctx context.Context) error {
		var saved uint64
		err := w.query(ctx, &saved, "SELECT coalesce((streams->$1::text->>'last_sequence')::bigint, 0) FROM walrelay.progress", streamName)
		if err == nil && saved < had+more {
			err = fmt.Errorf("it has %d, and %d are saved", had, saved)
		}
		return err
	})
}

// endedForLoss waits until the relay has ended. It must not publish anything
// meanwhile.
func (w *World) endedForLoss(ctx context.Context) error {
	r := w.relays[0]
	had := uint64(0)
	if err := until(ctx, 20*time.Second, "NATS says what the stream has", func(ctx context.Context) error {
		info, err := w.streamInfo(ctx)
		if err == nil {
			had = info.State.LastSeq
		}
		if errors.Is(err, jetstream.ErrStreamNotFound) {
			return nil
		}
		return err
	}); err != nil {
		return err
	}
	if err := until(ctx, 60*time.Second, "the relay has ended", func(ctx context.Context) error {
		if info, err := w.streamInfo(ctx); err == nil && info.State.LastSeq > had {
			return fmt.Errorf("P7: %w: the relay went on in a stream that has lost events, which hides the gap", errHopeless)
		}
		if r.process.Running() {
			return errors.New("it has not")
		}
		return nil
	}); err != nil {
		if errors.Is(err, errHopeless) {
			return errHidden
		}
		return fmt.Errorf("%w; it said last:\n%s", err, r.log.Tail(5))
	}
	last := r.log.Tail(1)
	w.hist.Add(r.name, "ended", "code", r.process.Code(), "line", last)
	if r.process.Code() != 1 || !regexp.MustCompile(`lost acknowledged events|deleted and created again|does not exist`).MatchString(last) ||
		!regexp.MustCompile(`\d+ events?, published since`).MatchString(last) {
		return fmt.Errorf("the relay ended with %d, and does not say what is missing:\n%s", r.process.Code(), last)
	}
	return nil
}

var errHidden = errors.New("P7: the relay went on in a stream that has lost events, which hides the gap")

// runRepair runs "walrelay repair", kills it in between, and notes what it says
// that it cannot bring back.
func (w *World) runRepair(ctx context.Context, rng *rand.Rand) error {
	args := []string{"repair", "--accept-loss", "--json", "--log-level", "error"}
	out, err := w.command(ctx, append(args, "--dry-run")...)
	if err != nil {
		return err
	}
	if err := w.noteLost(out); err != nil {
		return err
	}
	for range 2 {
		cmd := exec.CommandContext(ctx, w.programs.relay, args...)
		cmd.Dir, cmd.Env = w.dir, append(os.Environ(), w.environ()...)
		if err := cmd.Start(); err != nil {
			return err
		}
		sleep(ctx, between(rng, 20*time.Millisecond, 250*time.Millisecond))
		_ = cmd.Process.Signal(syscall.SIGKILL)
		w.hist.Add("harness", "repair is killed", "err", cmd.Wait())
	}
	out, err = w.command(ctx, args...)
	w.hist.Add("harness", "repair has ended", "said", lastLine(out))
	if err != nil {
		return err
	}
	return w.noteLost(out)
}

func lastLine(text string) string {
	all := strings.Split(strings.TrimSpace(text), "\n")
	return all[len(all)-1]
}

// noteLost takes down which events a repair says it cannot bring back.
func (w *World) noteLost(out string) error {
	scanner := bufio.NewScanner(strings.NewReader(out))
	scanner.Buffer(nil, 1<<20)
	for scanner.Scan() {
		var said struct {
			Event struct {
				ID   string `json:"id"`
				Lost string `json:"lost"`
			} `json:"event"`
			Repair struct {
				Missing int `json:"missing"`
				Unknown int `json:"unknown"`
			} `json:"repair"`
		}
		if err := json.Unmarshal(scanner.Bytes(), &said); err != nil {
			return fmt.Errorf("repair says %q: %w", scanner.Text(), err)
		}
		if said.Repair.Unknown > 0 {
			return fmt.Errorf("repair says that the journal does not have everything: %s", scanner.Text())
		}
		if said.Event.Lost != "" {
			if w.lost == nil {
				w.lost = make(map[string]string)
			}
			w.lost[said.Event.ID] = said.Event.Lost
		}
	}
	return scanner.Err()
}

// cutPower gives nats-server a disk of its own, and then takes from it what was
// not written to that yet: it freezes the server, copies what is on the disk, and
// starts the server on the copy, after the file system was checked as it is after
// a power cut.
func (w *World) cutPower(ctx context.Context, rng *rand.Rand) error {
	s := w.nats[0]
	image := filepath.Join(w.dir, "disk.img")
	if err := makeDisk(ctx, image, 256); err != nil {
		return err
	}
	s.stop()
	disk := filepath.Join(s.dir, "disk")
	if err := w.mountDisk(ctx, image, disk); err != nil {
		return err
	}
	if err := os.CopyFS(filepath.Join(disk, "store"), os.DirFS(s.store)); err != nil {
		return err
	}
	s.store = filepath.Join(disk, "store")
	if err := s.start(ctx); err != nil {
		return err
	}
	if err := w.flowing(ctx, 100+rng.IntN(300)); err != nil {
		return err
	}
	// What the server would do every two minutes, at a moment of the past.
	if err := syncDisk(ctx, disk); err != nil {
		return err
	}
	if err := w.acknowledged(ctx, uint64(300+rng.IntN(500))); err != nil {
		return err
	}
	s.process.Signal(syscall.SIGSTOP)
	w.reader.stop(true)
	cut := filepath.Join(w.dir, "cut.img")
	if err := copyFile(image, cut); err != nil {
		return err
	}
	s.process.Kill()
	w.hist.Add("harness", "the power is cut")
	if err := checkDisk(ctx, cut); err != nil {
		return err
	}
	disk = filepath.Join(s.dir, "disk-after")
	if err := w.mountDisk(ctx, cut, disk); err != nil {
		return err
	}
	s.store = filepath.Join(disk, "store")
	return s.start(ctx)
}
