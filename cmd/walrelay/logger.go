package main

import (
	"fmt"
	"io"
	"os"
	"time"

	"github.com/mattn/go-isatty"
	"github.com/rs/zerolog"

	"github.com/walrelay/walrelay"
)

// newLogger returns the logger that log.level and log.format ask for.
func newLogger(cfg walrelay.Config, w io.Writer) (zerolog.Logger, error) {
	cfg = cfg.WithDefaults()
	level, err := zerolog.ParseLevel(cfg.Log.Level)
	if err != nil {
		return zerolog.Nop(), &walrelay.ConfigError{Key: "log.level", Problem: fmt.Sprintf("%q is no level", cfg.Log.Level)}
	}
	file, ok := w.(*os.File)
	terminal := ok && isatty.IsTerminal(file.Fd())
	if cfg.Log.Format == "console" || cfg.Log.Format == "auto" && terminal {
		w = zerolog.ConsoleWriter{Out: w, TimeFormat: time.TimeOnly, NoColor: !terminal || os.Getenv("NO_COLOR") != ""}
	}
	return zerolog.New(w).Level(level).With().Timestamp().Logger(), nil
}

// logReport logs what init did.
func logReport(log zerolog.Logger, report walrelay.Report) {
	for _, item := range report.Items {
		event := log.Info().Str("kind", item.Kind).Str("name", item.Name).Str("action", string(item.Action))
		if item.Detail != "" {
			event = event.Str("detail", item.Detail)
		}
		event.Msg("init")
	}
	for _, warning := range report.Warnings {
		log.Warn().Msg(warning)
	}
}
