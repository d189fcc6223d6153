package connect

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/walrelay/walrelay/config"
)

const (
	// maxSecret bounds a file or an answer with a secret, in bytes.
	maxSecret = 64 << 10
	// secretPatience bounds a command that prints one.
	secretPatience = 10 * time.Second
)

// PostgresSecrets reads the URL of the database, and the password if it is not in there. It
// blocks for 10 s at most, while a command prints the password. A *[config.Error] names what
// cannot be read; no error quotes a secret.
func PostgresSecrets(ctx context.Context, cfg config.Postgres) (url, password string, err error) {
	if url, err = PostgresURL(cfg); err != nil {
		return "", "", err
	}
	switch {
	case cfg.PasswordFile != "":
		password, err = readSecret("postgres.password_file", cfg.PasswordFile)
	case len(cfg.PasswordCommand) > 0:
		password, err = runSecret(ctx, cfg.PasswordCommand)
	}
	return url, password, err
}

// SlotSecrets does so for the server that has the slot: the standby, if it is there.
func SlotSecrets(ctx context.Context, cfg config.Postgres) (url, password string, err error) {
	url, password, err = PostgresSecrets(ctx, cfg)
	if err != nil || cfg.Standby == "" {
		return url, password, err
	}
	if url, err = config.AtHost(url, cfg.Standby); err != nil {
		err = &config.Error{Key: "postgres.url", Problem: err.Error()}
	}
	return url, password, err
}

// PostgresURL reads the URL of the database.
func PostgresURL(cfg config.Postgres) (string, error) {
	if cfg.URLFile == "" {
		return cfg.URL, nil
	}
	return readSecret("postgres.url_file", cfg.URLFile)
}

// readURL reads the URLs of NATS, if a file has them.
func readURL(c *config.NATS) (err error) {
	if c.URLFile != "" {
		c.URL, err = readSecret("nats.url_file", c.URLFile)
	}
	return err
}

// again reads a secret for another connection. Without it the server refuses the
// connection, and it is tried again.
func again(key, path string) string {
	secret, _ := readSecret(key, path)
	return secret
}

// readSecret reads a file, without the line feeds at its end.
func readSecret(key, path string) (string, error) {
	info, err := os.Stat(path)
	if err == nil && info.Size() > maxSecret {
		err = fmt.Errorf("%s has %d bytes, which is no secret", path, info.Size())
	}
	var text []byte
	if err == nil {
		text, err = os.ReadFile(path)
	}
	secret := strings.TrimRight(string(text), "\r\n")
	if err == nil && secret == "" {
		err = fmt.Errorf("%s is empty", path)
	}
	if err != nil {
		return "", &config.Error{Key: key, Problem: fmt.Sprintf("cannot be read: %v", err)}
	}
	return secret, nil
}

// runSecret runs a program and returns what it prints. It may fail for a while, as when the
// service that it asks is away: only a program that does not exist is a mistake.
func runSecret(ctx context.Context, command []string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, secretPatience)
	defer cancel()
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	cmd.WaitDelay = time.Second // for what it has started
	out, err := cmd.Output()
	switch {
	case errors.Is(err, exec.ErrNotFound) || errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission):
		return "", &config.Error{Key: "postgres.password_command", Problem: err.Error()}
	case ctx.Err() != nil:
		return "", fmt.Errorf("postgres.password_command: %s has not printed a password: %w", command[0], context.Cause(ctx))
	case err != nil:
		// What it has printed may be a secret.
		return "", fmt.Errorf("postgres.password_command: %s: %w; run it by hand to see why", command[0], err)
	}
	secret := strings.TrimRight(string(out), "\r\n")
	if secret == "" || len(secret) > maxSecret || strings.ContainsAny(secret, "\r\n\x00") {
		return "", fmt.Errorf("postgres.password_command: %s has to print one line, the password", command[0])
	}
	return secret, nil
}

// ConsoleToken reads the token of the console; "" if there is none. The error is a *[config.Error].
func ConsoleToken(cfg config.Console) (string, error) {
	if cfg.TokenFile == "" {
		return cfg.Token, nil
	}
	token, err := readSecret("console.token_file", cfg.TokenFile)
	if err == nil && len(token) < config.MinToken {
		return "", &config.Error{Key: "console.token_file", Problem: fmt.Sprintf("the token in %s has %d characters, and needs at least %d", cfg.TokenFile, len(token), config.MinToken)}
	}
	return token, err
}

// CheckFiles reports the files of the database's URL and password that cannot be read, as
// *[config.Error] values, joined: for the start, when that is a mistake. Later it may be a
// moment in which they are replaced.
func CheckFiles(cfg config.Postgres) error {
	var errs []error
	for _, file := range []struct{ key, path string }{{"postgres.url_file", cfg.URLFile}, {"postgres.password_file", cfg.PasswordFile}} {
		if file.path != "" {
			_, err := readSecret(file.key, file.path)
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// OpenFiles returns the files with secrets that other users of the machine may read.
func OpenFiles(cfg config.Config) (paths []string) {
	for _, path := range []string{
		cfg.Postgres.URLFile, cfg.Postgres.PasswordFile, cfg.NATS.URLFile, cfg.NATS.PasswordFile, cfg.NATS.TokenFile,
		cfg.NATS.CredsFile, cfg.NATS.NKeyFile, cfg.NATS.TLS.KeyFile, cfg.Console.TokenFile, cfg.HTTP.TLS.KeyFile,
	} {
		if path == "" {
			continue
		}
		const others = 0o007
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() && info.Mode().Perm()&others != 0 {
			paths = append(paths, path)
		}
	}
	return paths
}
