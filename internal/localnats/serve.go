package localnats

import (
	"errors"
	"fmt"
	"io"
)

// Serve is a nats-server with its streams in a folder. It writes its URL to
// out, a line, and ends when in does: when the program that holds the other end
// closes it, or dies.
func Serve(dir string, in io.Reader, out io.Writer) (err error) {
	server, err := Start(Options{StoreDir: dir})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, server.Close()) }()
	if _, err := fmt.Fprintln(out, server.URL()); err != nil {
		return fmt.Errorf("telling the URL: %w", err)
	}
	if _, err := io.Copy(io.Discard, in); err != nil {
		return fmt.Errorf("waiting for the end of standard input: %w", err)
	}
	return nil
}
