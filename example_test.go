package walrelay_test

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"os/signal"
	"syscall"

	"github.com/rs/zerolog"

	"github.com/walrelay/walrelay"
	"github.com/walrelay/walrelay/config"
)

// A program that embeds the relay: it makes what is missing, as "walrelay
// init" does, and streams until it is told to stop.
func Example() {
	cfg := walrelay.Config{
		Postgres: config.Postgres{URL: os.Getenv("WALRELAY_POSTGRES_URL")},
		NATS:     config.NATS{URL: os.Getenv("WALRELAY_NATS_URL")},
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()

	if _, err := walrelay.Setup(ctx, cfg); err != nil {
		fmt.Println(err)
		return
	}
	relay, err := walrelay.New(cfg, walrelay.Options{Log: zerolog.New(os.Stderr)})
	if err != nil {
		fmt.Println(err)
		return
	}
	if err := relay.Run(ctx); err != nil {
		fmt.Println(err)
	}
}

// A program that embeds a relay decides itself where health and metrics are
// served.
func ExampleRelay_Handler() {
	relay, err := walrelay.New(walrelay.Config{
		Postgres: config.Postgres{URL: "postgres://localhost/shop"},
		NATS:     config.NATS{URL: "nats://localhost:4222"},
	}, walrelay.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	mux := http.NewServeMux()
	mux.Handle("/relay/", http.StripPrefix("/relay", relay.Handler()))

	fmt.Println(relay.Ready(), relay.Status().Slot)
	// Output: [not connected to NATS starting] walrelay
}

// What is as it should be, and what is not.
func ExampleCheck() {
	results, err := walrelay.Check(context.Background(), walrelay.Config{
		Postgres: config.Postgres{URL: os.Getenv("WALRELAY_POSTGRES_URL")},
		NATS:     config.NATS{URL: os.Getenv("WALRELAY_NATS_URL")},
	})
	for _, r := range results {
		fmt.Println(r.Status, r.ID, r.Text())
	}
	if err != nil {
		fmt.Println(err)
	}
}

// Streams that have lost acknowledged events get them again, while no relay runs.
func ExampleRepair() {
	report, err := walrelay.Repair(context.Background(), walrelay.Config{
		Postgres: config.Postgres{URL: os.Getenv("WALRELAY_POSTGRES_URL")},
		NATS:     config.NATS{URL: os.Getenv("WALRELAY_NATS_URL")},
	}, walrelay.RepairOptions{DryRun: true})
	for _, stream := range report.Streams {
		fmt.Println(stream.Stream, stream.Missing, "missing,", stream.Restored, "can be restored")
	}
	if err != nil {
		fmt.Println(err)
	}
}

// All problems of a configuration are told at once, each with its key.
func ExampleConfig_Validate() {
	cfg := walrelay.Config{
		Postgres: config.Postgres{URL: "postgres://localhost/shop"},
		NATS:     config.NATS{URL: "nats://localhost:4222"},
		Slot:     "Orders",
		Publish:  config.Publish{MaxInFlight: -1},
	}
	fmt.Println(cfg.WithDefaults().Validate())
	// Output:
	// slot: "Orders" is not a valid slot name (1–63 of a-z, 0-9, _)
	// publish.max_in_flight: must be greater than zero
}

// What a DBA runs in place of "walrelay init".
func ExamplePrintSQL() {
	sql, err := walrelay.PrintSQL(walrelay.Config{
		Postgres: config.Postgres{URL: "postgres://localhost/shop"},
		NATS:     config.NATS{URL: "nats://localhost:4222"},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(len(sql) > 0)
	// Output: true
}
