package e2e_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/walrelay/walrelay/internal/testkit"
)

// tail shows each event once and in order, also across a connection that is cut.
func TestTail(t *testing.T) {
	t.Parallel()
	e := newEnv(t, shared)
	if out, code := e.walrelay("tail", "--no-follow"); code != 1 || !strings.Contains(out, `stream "EVENTS" does not exist`) {
		t.Errorf("without a stream it ends with %d and says %q", code, out)
	}
	e.init()
	e.run()
	publish := func(from, to int) {
		testkit.Exec(t, e.postgresURL, fmt.Sprintf(`INSERT INTO outbox (event_type, source, data, partition_key)
			SELECT CASE WHEN n %% 2 = 0 THEN 'order.placed' ELSE 'user.created' END, '/e2e', jsonb_build_object('n', n), 'k' FROM generate_series(%d, %d) AS n`, from, to))
	}
	publish(1, 6)
	e.awaitMessages("EVENTS", 6)
	out, code := e.walrelay("tail", "--from", "start", "--no-follow", "--json", "order.*")
	if code != 0 {
		t.Fatalf("it ended with %d: %s", code, out)
	}
	var numbers []int
	for line := range strings.Lines(out) {
		var one struct {
			Sequence uint64 `json:"sequence"`
			Position string `json:"position"`
			Event    struct {
				Type string `json:"type"`
				Data struct {
					N int `json:"n"`
				} `json:"data"`
			} `json:"event"`
		}
		if err := json.Unmarshal([]byte(line), &one); err != nil || one.Event.Type != "order.placed" || one.Sequence != uint64(one.Event.Data.N) || one.Position == "" {
			t.Errorf("it writes %q (%v)", line, err)
		}
		numbers = append(numbers, one.Event.Data.N)
	}
	if fmt.Sprint(numbers) != "[2 4 6]" {
		t.Errorf("it shows %v", numbers)
	}
	if out, code := e.walrelay("tail", "--from", "5", "-n", "1"); code != 0 || !strings.Contains(out, `user.created`) || !strings.Contains(out, `key=k  {"n":5}`) {
		t.Errorf("from sequence 5 it ends with %d and shows %q", code, out)
	}
	for _, args := range [][]string{{"--from", "yesterday"}, {"--limit", "-1"}, {"--json", "--whole"}, {"order.*x"}} {
		if out, code := e.walrelay(append([]string{"tail"}, args...)...); code != 2 {
			t.Errorf("tail %v ends with %d: %s", args, code, out)
		}
	}
	follow := e.launch("tail", "--from", "1")
	follow.awaitLog(`{"n":6}`)
	for n := range 3 {
		e.server.CutClients("")
		publish(7+n, 7+n)
		follow.awaitLog(fmt.Sprintf(`{"n":%d}`, 7+n))
	}
	if code := follow.stop(); code != 0 {
		t.Errorf("tail ended with %d", code)
	}
	for n := 1; n < 10; n++ {
		if times := strings.Count(follow.logs.String(), fmt.Sprintf(`{"n":%d}`, n)); times != 1 {
			t.Errorf("event %d is shown %d times", n, times)
		}
	}
}
