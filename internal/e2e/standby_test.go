package e2e_test

import (
	"errors"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/walrelay/walrelay/internal/testkit"
)

// A slot with failover waits for the standbys of synchronized_standby_slots. That one is
// away is no reason to stop: the relay says so, and goes on when it is there, or is no
// longer asked for.
func TestStandby_OfSynchronizedSlotsIsAway(t *testing.T) {
	t.Parallel()
	e := newEnv(t, own)
	if version, err := strconv.Atoi(testkit.Query(t, e.postgresURL, "SHOW server_version_num")); err != nil || version < 170000 {
		t.Skip("Postgres before 17 has no synchronized_standby_slots")
	}
	e.environ = []string{"WALRELAY_FAILOVER=true"}
	e.init()
	r := e.run()
	e.insert(1)
	e.awaitMessages("EVENTS", 1)
	execScript(t, e.postgresURL, `SELECT pg_create_physical_replication_slot('standby', true);
		ALTER SYSTEM SET synchronized_standby_slots = 'standby';
		SELECT pg_reload_conf()`)
	testkit.Eventually(t, 10*time.Second, "the setting is read", func() error {
		if testkit.Query(t, e.postgresURL, "SHOW synchronized_standby_slots") == "" {
			return errors.New("it is not")
		}
		return nil
	})
	e.insert(1)
	r.awaitLog(`standby\" specified in parameter`)
	r.awaitLog("Postgres warns")
	if out, code := e.walrelay("doctor"); code != 1 || !strings.Contains(out, "standby_slots") || !strings.Contains(out, ": standby\n") {
		t.Errorf("doctor ends with %d and says\n%s", code, out)
	}
	execScript(t, e.postgresURL, "ALTER SYSTEM RESET synchronized_standby_slots; SELECT pg_reload_conf()")
	e.awaitMessages("EVENTS", 2)
	r.awaitReady()
}
