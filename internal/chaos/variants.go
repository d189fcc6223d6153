package main

// steps are where the stepped relay can be made to die: between any two of
// them, something has happened and something has not.
var steps = []string{
	"received", "sent", "acked", "delaying", "delayed", "saved", "reported", "emitting", "emitted", "resync", "expel",
}

// stepped is the relay that kills itself where CHAOS_STEP says ("sent:500":
// when it has sent a message for the 500th time), and whose clock jumps an hour
// ahead at SIGUSR1 and an hour back at SIGUSR2.
func stepped() variant {
	at := func(name string) string { return "step.At(\"" + name + "\")\n" }
	imports := func(file string) edit {
		return edit{file, "import (\n", "import (\n\t\"github.com/walrelay/walrelay/internal/step\"\n"}
	}
	before := func(file, text, name string) edit { return edit{file, text, at(name) + text} }
	return variant{
		name: "stepped",
		edits: []edit{
			imports("internal/relay/session.go"),
			before("internal/relay/session.go", "\t\tchange, err := s.decoder.Decode(msg.Data)\n", "received"),
			before("internal/relay/session.go", "\tif err := s.stream.Report(lsn); err != nil {\n", "saved"),
			imports("replication/stream.go"),
			{
				"replication/stream.go",
				"\tif _, err := s.conn.Write(b[:]); err != nil {\n\t\treturn fmt.Errorf(\"sending a standby status update: %w\", err)\n\t}\n",
				"\tif _, err := s.conn.Write(b[:]); err != nil {\n\t\treturn fmt.Errorf(\"sending a standby status update: %w\", err)\n\t}\n" + at("reported"),
			},
			imports("router/writer.go"),
			before("router/writer.go", "\tif in.isLast() {\n\t\tw.sent++\n", "sent"),
			before("router/writer.go", "\tn := got.sequence - w.offset\n", "acked"),
			imports("router/resync.go"),
			before("router/resync.go", "\tr, err := w.readLedger(ctx, known, true)\n", "resync"),
			before("router/resync.go", "\treturn w.cfg.parker.Park(ctx, failed, reason, behind)\n", "expel"),
			imports("retry/table.go"),
			before("retry/table.go", "\tif err := conn.SendBatch(ctx, &batch).Close(); err != nil {\n", "delaying"),
			before("retry/table.go", "\tif !owned {\n", "delayed"),
			imports("retry/emit.go"),
			before("retry/emit.go", "\tif err := tx.Commit(ctx); err != nil {\n", "emitting"),
			before("retry/emit.go", "\tcommitted = true\n", "emitted"),
			{
				"go:src/time/time.go",
				"func Now() Time {\n\tsec, nsec, mono := runtimeNow()\n",
				"var Skew int64 // in seconds\n\nfunc Now() Time {\n\tsec, nsec, mono := runtimeNow()\n\tsec += Skew\n",
			},
		},
		added: map[string]string{
			"internal/step/step.go": `// Package step ends the process where it is told to.
package step

import (
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
)

var (
	name, count, _ = strings.Cut(os.Getenv("CHAOS_STEP"), ":")
	last, _        = strconv.ParseInt(count, 10, 64)
	calls          atomic.Int64
)

// At is called at the step.
func At(step string) {
	if step == name && calls.Add(1) == last {
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {}
	}
}
`,
			"cmd/walrelay/skew.go": `package main

import (
	"os"
	"os/signal"
	"syscall"
	"time"
)

func init() {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGUSR1, syscall.SIGUSR2)
	go func() {
		for s := range signals {
			if s == syscall.SIGUSR1 {
				time.Skew += 3600
			} else {
				time.Skew -= 3600
			}
		}
	}()
}
`,
		},
	}
}

// control is a relay with a fault of its own, which the harness must find: one
// that finds nothing here shows nothing elsewhere.
type control struct {
	variant
	// faults show it, and setting is where.
	faults  []string
	setting string
	// promise is the beginning of a violation that has to be among those found.
	promise string
	// long leaves it out of the short run, which has another one of its kind.
	long bool
}

// controls are the relays and the handlers that break a promise.
func controls() []control { return append(relayControls(), handlerControls()...) }

// handlerControls are handlers that break P10. Parking is looked up by a statement of its own in each transaction,
// which is right in READ COMMITTED, so that there is no control for one statement: marks need no such look.
func handlerControls() []control {
	handlers := func(name string, edits ...edit) variant {
		return variant{name: name, pkg: handlersPackage, edits: edits}
	}
	return []control{
		{
			variant: handlers("moves-marks-by-any-position", edit{"inbox/position.go", "\tif !signer.Signs(it.sequence, text, digest) {\n", "\tif false {\n"},
				edit{"inbox/position.go", "known != nil && known.Signs(it.sequence, text, digest)", "known != nil"}),
			faults: []string{"forged-events"}, setting: onHandlers, promise: "P10",
		},
		{
			variant: handlers("does-not-reset-at-a-takeover", edit{"inbox/consumer.go", "\tif err := c.reset(ctx); err != nil {\n\t\treturn err\n\t}\n\tif c.db != nil {\n", "\tif c.db != nil {\n"},
				edit{"inbox/consumer.go", "\t_ = c.reset(ctx) // what", "\t// what"},
				edit{"inbox/generation.go", "meta.Sequence.Consumer != g.last+1 {\n", "g.last > 0 && meta.Sequence.Consumer <= g.last {\n"},
				edit{"inbox/generation.go", "\tg.last++\n", "\tg.last = meta.Sequence.Consumer\n"}),
			faults: []string{"handlers-unpinned", "handlers-frozen"}, setting: onHandlers, promise: "P10",
		},
		{
			variant: handlers("retries-by-nak", edit{"inbox/park.go", "\tif l.c.db == nil {\n\t\tif !verdict.failed {\n", "\tif !verdict.failed {\n\t\t_ = r.it.msg.Nak()\n\t\treturn !verdict.failed, true, nil\n\t}\n\tif l.c.db == nil {\n\t\tif !verdict.failed {\n"}),
			faults:  []string{"handlers-killed"}, setting: onHandlers, promise: "P10", long: true,
		},
		{
			variant: handlers("knows-blocked-keys-from-memory-only", edit{"sql/inbox/0001_inbox.sql", "    IF cardinality(keys) > 0 AND EXISTS (\n", "    IF false AND EXISTS (\n"},
				edit{"inbox/consumer.go", "\t\t\tg.block(hash)\n", "\t\t\t_ = hash\n"}),
			faults: []string{"handlers-killed", "handlers-stopped"}, setting: onHandlers, promise: "P10",
		},
		{
			variant: handlers("does-not-compare-marks", edit{"sql/inbox/0001_inbox.sql", "          AND (m.timeline = of_timeline AND m.position < lowest[1]\n", "          AND (true OR m.timeline = of_timeline AND m.position < lowest[1]\n"}),
			faults:  []string{"handlers-unpinned", "handlers-frozen"}, setting: onHandlers, promise: "P10", long: true,
		},
		{
			variant: handlers("knows-events-by-their-sequence", edit{"inbox/position.go", "\tname := it.stream + \" \" + slot\n", "\ts.position = event.Position{CommitLSN: it.sequence}.String()\n\tname := it.stream + \" \" + slot\n"}),
			faults:  []string{"stream-restored"}, setting: onHandlers, promise: "P10",
		},
	}
}

func relayControls() []control {
	return []control{
		{
			variant: variant{name: "acknowledges-on-receipt", edits: []edit{
				{"replication/frontier.go", "\tdefer f.mu.Unlock()\n\treturn f.lsn\n", "\tdefer f.mu.Unlock()\n\treturn f.received\n"},
			}},
			faults: []string{"relay-killed-while-nats-hangs"}, setting: onSingle, promise: "P1",
		},
		{
			variant: variant{name: "acknowledges-early", edits: []edit{
				{"router/writer.go", "\terr := w.send(n, place{})\n", "\terr := w.send(n, place{})\n\tw.cfg.observer.Settled(taken.Ticket, Published, ev, 0)\n"},
				{"router/writer.go", "\tw.cfg.observer.Settled(f.ticket, outcome, f.ev, time.Since(f.sent))\n", "\t_ = outcome\n"},
				{"replication/frontier.go", "\tif t < f.low || t >= f.next {\n\t\tpanic(", "\tif t < f.low || t >= f.next {\n\t\treturn\n\t\tpanic("},
				{"replication/frontier.go", "\tif f.done[word]&bit != 0 {\n\t\tpanic(", "\tif f.done[word]&bit != 0 {\n\t\treturn\n\t\tpanic("},
			}},
			faults: []string{"relay-killed-while-nats-hangs"}, setting: onSingle, promise: "P1", long: true,
		},
		{
			variant: variant{name: "acknowledges-every-keepalive", edits: []edit{
				{"replication/frontier.go", "\treturn f.mark(lsn)\n}\n\nfunc (f *Frontier) mark", "\tf.mu.Lock()\n\tf.lsn, f.received = lsn, lsn\n\tf.mu.Unlock()\n\treturn nil\n}\n\nfunc (f *Frontier) mark"},
			}},
			faults: []string{"relay-killed-while-nats-hangs"}, setting: onSingle, promise: "P1", long: true,
		},
		{
			variant: variant{name: "drops-the-fence", edits: []edit{
				{"router/writer.go", "\t\t\tw.enc.Set(&w.msg, nats.ExpectedLastSeqHdr, text[endSubject:endSequence])\n", "\t\t\t_ = text[endSubject:endSequence]\n"},
			}},
			// Events are stored twice; or one that was refused is taken for stored,
			// since later ones are.
			faults: []string{"relay-wakes-after-takeover"}, setting: onPair, promise: "P",
		},
		{
			variant: variant{name: "forgets-the-delayed-set", edits: []edit{
				{"internal/relay/session.go", "passed: passed, known: known, recent", "passed: passed, recent"},
				{"internal/relay/session.go", "\tparking := &parking{\n", "\tclear(known)\n\tparking := &parking{\n"},
			}},
			faults: []string{"refused-then-taken"}, setting: onSingle, promise: "P2",
		},
		{
			variant: variant{name: "retries-single-messages", edits: []edit{
				// Every message has a reply subject of its own and no fence; one
				// that was refused is sent again, after those that followed it.
				{"router/writer.go", "\tif w.cfg.shared {\n\t\tend := len(b)\n", "\tif true {\n\t\tend := len(b)\n"},
				{"router/writer.go", "\tif w.cfg.shared {\n\t\tif n, err = strconv", "\tif true {\n\t\tif n, err = strconv"},
				{"router/writer.go", "\tif !w.cfg.shared {\n\t\tw.reply += \"0\"\n\t}\n", ""},
				{"router/writer.go", "\tcase w.cfg.shared:\n\t\tf.stored = true\n\t\tw.settleStored()\n", "\tcase true:\n\t\tf.stored = true\n\t\tw.settleStored()\n"},
				{"router/writer.go", "\tif err != nil || got.duplicate && !w.cfg.shared {\n", "\tif err != nil {\n\t\tif n, nerr := strconv.ParseUint(number, 10, 64); nerr == nil && n >= w.base && n < w.next {\n\t\t\t_ = w.send(n, place{})\n\t\t}\n\t\treturn\n\t}\n\tif false {\n"},
			}},
			faults: []string{"nats-ingest-overload"}, setting: onSingle, promise: "P",
		},
		{
			variant: variant{name: "does-not-notice-that-the-stream-is-another", edits: []edit{
				{"router/loss.go", "\tif w.created.IsZero() || r.created.Equal(w.created) && r.last >= sequence {\n", "\tif true {\n"},
			}},
			faults: []string{"stream-recreated"}, setting: onSingle, promise: "stream-recreated: P7",
		},
		{
			variant: variant{name: "reads-everybodys-logical-messages", edits: []edit{
				{"internal/relay/session.go", "\tlegacy := before != nil && before.FlushLSN < before.MessagesUntil\n", "\tlegacy := before != nil || true\n"},
				{"decode/message.go", " || d.commitLSN >= d.messagesUntil {\n", " {\n"},
			}},
			faults: []string{"hostile-login"}, setting: onSingle, promise: "P1",
		},
		{
			variant: variant{name: "believes-every-position", edits: []edit{
				{"router/ledger.go", "\tif l.signer == nil || l.signer.Signs(", "\tif true || l.signer.Signs("},
			}},
			faults: []string{"forged-positions"}, setting: onSingle, promise: "forged-positions",
		},
		{
			variant: variant{name: "takes-the-last-position-for-all-before-it", edits: []edit{
				{"router/tail.go", "{ return t.foreign == 0 }", "{ return true }"},
			}},
			faults: []string{"foreign-publisher"}, setting: onSingle, promise: "P1",
		},
		{
			variant: variant{name: "copies-what-is-too-large", edits: []edit{
				{"internal/relay/session.go", "\tdecoding.MaxEventSize = maxEventSize(r.cfg.Publish, nc)\n", "\t_ = maxEventSize\n"},
			}},
			faults: []string{"huge-rows"}, setting: onSingle, promise: "P4",
		},
		{
			variant: variant{name: "takes-inherited-rows-for-its-own", edits: []edit{
				{"sql/0012_status.sql", "CASE WHEN covered.relkind = 'r' THEN 'ONLY' ELSE '' END,", "'',"},
			}},
			faults: []string{"table-inherited"}, setting: onSingle, promise: "table-inherited",
		},
		{
			variant: variant{name: "does-not-ask-whose-the-slot-is", edits: []edit{
				{"internal/check/judge.go", "\tif slot != nil && slot.Database != \"\" && slot.Database != slot.CurrentDatabase {\n", "\tif false {\n"},
			}},
			faults: []string{"second-database"}, setting: onSingle, promise: "second-database",
		},
		{
			variant: variant{name: "leaves-the-settings-of-the-database", edits: []edit{
				{"replication/stream.go", "\tmaps.Copy(params, Settings())\n", "\tmaps.Copy(params, map[string]string{})\n"},
			}},
			faults: []string{"role-settings"}, setting: onSingle, promise: "role-settings", long: true,
		},
		{
			variant: variant{name: "does-not-ask-which-table-is-published", edits: []edit{
				{"internal/check/judge.go", "\tif !t.Published && !t.Listed {\n", "\tif false {\n"},
			}},
			faults: []string{"table-replaced"}, setting: onSingle, promise: "table-replaced",
		},
		{
			variant: variant{name: "calls-published-what-is-under-way", edits: []edit{
				{"sql/0004_emitted.sql", "AND NOT walrelay.is_settled(e.xmin, p.published);\n", "AND false;\n"},
			}},
			faults: []string{"nats-killed", "nats-restarted"}, setting: onSingle, promise: "status",
		},
	}
}
