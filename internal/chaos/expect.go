package main

import (
	"sync"
	"time"
)

// kind is what should become of an event.
type kind int

const (
	// plain is published at once.
	plain kind = iota
	// scheduled is published when its time has come.
	scheduled
	// patient may be refused for a while, and is published in the end.
	patient
	// poison is never published, and has failed in the end.
	poison
)

func (k kind) String() string { return [...]string{"plain", "scheduled", "patient", "poison"}[k] }

// outcome is what a writer knows of its transaction.
type outcome int

const (
	unknown outcome = iota // the connection was lost at the commit
	committed
	rolledBack
)

// expected is an event that a writer wrote.
type expected struct {
	id     string
	what   string // how it was made, for a person
	kind   kind
	key    string
	due    time.Time
	writer int
	// rowless says that no row is left of it.
	rowless bool
}

// transaction is what one transaction of a writer wrote.
type transaction struct {
	outcome outcome
	events  []*expected
}

// ledger is what the writers did. Safe for concurrent use.
type ledger struct {
	mu           sync.Mutex
	transactions []*transaction
	written      int
}

func (l *ledger) add(t *transaction) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.transactions = append(l.transactions, t)
	if t.outcome != rolledBack {
		l.written += len(t.events)
	}
}

// events is how many were written, or may have been.
func (l *ledger) events() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.written
}

// doubtful lists the ids of some events of which it is to be asked whether they
// are published: new ones, and such that may have left the delay table.
func (l *ledger) doubtful(now time.Time) []string {
	const transactions, each = 5000, 10
	l.mu.Lock()
	defer l.mu.Unlock()
	var ids []string
	taken := make(map[kind]int)
	for i := len(l.transactions) - 1; i >= max(0, len(l.transactions)-transactions); i-- {
		for _, e := range l.transactions[i].events {
			left := e.kind != scheduled || now.After(e.due) && now.Before(e.due.Add(3*time.Second))
			if left && e.kind != poison && taken[e.kind] < each {
				taken[e.kind]++
				ids = append(ids, e.id)
			}
		}
	}
	return ids
}

// stored is a message that was found in the stream.
type stored struct {
	sequence uint64
	at       time.Time // the server's
	id       string
	position string // of its header
}

// flushed says which LSN the slot had confirmed at a time.
type flushed struct {
	at  time.Time // after it was asked
	lsn uint64
}

// delayed is a row of the delay table.
type delayed struct {
	id, state, lastError string
}
