package replication

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/walrelay/walrelay/internal/pace"
	"github.com/walrelay/walrelay/internal/pgparam"
	"github.com/walrelay/walrelay/internal/problem"
	"github.com/walrelay/walrelay/internal/sqlstate"
)

const (
	// readBuffer is how much is read from the socket at once: the server
	// writes each change with a system call of its own, the reader need not.
	readBuffer = 256 << 10
	// manyMessages within [pace.Interval] are worth a pause: from some 2700
	// transactions of one event a second on, of three messages each, or 8000
	// events a second in large ones.
	manyMessages = 80
	// late is from what age on a pause is worth it, however little comes: on
	// few processors a server and a reader that wake each other for every message
	// may need more time for it than there is, and fall behind until they stop.
	late = 10 * time.Millisecond
	// maxStatusInterval bounds the time between two status updates.
	maxStatusInterval = 10 * time.Second
	// busyPoll is how often a standby asks for the slot.
	busyPoll = 300 * time.Millisecond
	// replySpacing keeps a server that is shutting down, and asks for a reply
	// after each reply, from going round in circles with us.
	replySpacing = 50 * time.Millisecond
	// stoppingWithin is how close together two requests for a reply must come
	// to mean that the server is shutting down. In normal running it asks only
	// after half of wal_sender_timeout without a word from us, which is never.
	stoppingWithin = 2 * time.Second
)

// Config says what to stream.
type Config struct {
	// ConnString is the database's URL or keyword string. Password, if not empty, goes
	// before the one in it.
	ConnString, Password string
	// Slot and Publication exist and belong to the database.
	Slot        string
	Publication string
	// Messages asks for logical messages too, of every prefix (Postgres manual,
	// "Logical Streaming Replication Parameters").
	Messages bool
	// Unconverted, if set, reports whether text may arrive in a server encoding of
	// that name, as it is. Otherwise the server converts it to UTF-8, and a byte
	// without an equivalent ends the stream at every start (SQLSTATE 22021, 22P05).
	Unconverted func(serverEncoding string) bool
	// Window is how many events may be unsettled; default 65536.
	Window int
	// OnBusy, if set, is called from Open when the slot is held by another
	// session, first at once and then each time the holder changes.
	OnBusy func(pid string)
	// OnNotice, if set, is called from Receive with what the server says beside the
	// stream: the standbys that it waits for, for example, which it says again and again.
	OnNotice func(message, detail, hint string)
}

// System identifies where the slot lives (Postgres manual, IDENTIFY_SYSTEM).
type System struct {
	ID       string
	Timeline int32
	// Ended says at which LSN each of the earlier timelines ended.
	Ended map[int32]LSN
	// ConfirmedFlush is what the slot had confirmed when it was opened.
	ConfirmedFlush LSN
	// Encoding is that of the text in the stream, by Postgres's name.
	Encoding string
}

// Message is one message of the stream.
type Message struct {
	// Data is a message of the pgoutput plugin, valid until the next Receive;
	// nil for a keepalive.
	Data []byte
	// WALEnd is, for a keepalive, the LSN before which everything was sent.
	WALEnd LSN
	// ServerTime is the server's clock when it sent the message.
	ServerTime time.Time
	// ReplyRequested says that the server waits for a status update; one is
	// already under way.
	ReplyRequested bool
	// ServerStopping says that the server is shutting down, and waits until
	// everything it sent is reported as flushed or the stream is closed.
	ServerStopping bool
}

// Stream is a running START_REPLICATION. One goroutine calls Receive; a
// goroutine of the stream writes the status updates, so they are on time also
// while nobody receives. Report may be called from any goroutine.
type Stream struct {
	cfg      Config
	system   System
	frontier *Frontier

	conn     net.Conn // read by Receive only, written by the status goroutine only
	frontend *pgproto3.Frontend
	reader   *deadlineReader
	buffer   *bufio.Reader

	interval time.Duration
	reported atomic.Uint64 // the LSN of the status updates
	kick     chan struct{} // asks for a status update; capacity 1, never closed
	quit     chan struct{} // closed by Close: the status goroutine ends
	ended    chan struct{} // closed by the status goroutine at its end
	sendErr  error         // of the status goroutine; read after ended
	closing  sync.Once

	pace        pace.Pace // Receive only
	lastRequest time.Time // Receive only: when the server last asked for a reply
	stopping    bool      // Receive only
}

// Open starts streaming. It blocks while another session holds the slot, until
// that one ends or the context does. A *[problem.Problem] says that retrying
// is of no use.
func Open(ctx context.Context, cfg Config) (*Stream, error) {
	if cfg.Window <= 0 {
		cfg.Window = 1 << 16
	}
	s := &Stream{
		cfg:    cfg,
		reader: &deadlineReader{},
		pace:   pace.Pace{Much: manyMessages},
		kick:   make(chan struct{}, 1),
		quit:   make(chan struct{}),
		ended:  make(chan struct{}),
	}
	conn, err := s.connect(ctx)
	if err != nil {
		return nil, classify(cfg.Slot, cfg.Publication, fmt.Errorf("connecting to Postgres for replication: %w", err))
	}
	if err := s.start(ctx, conn); err != nil {
		closeErr := conn.Close(context.WithoutCancel(ctx))
		return nil, errors.Join(classify(cfg.Slot, cfg.Publication, err), closeErr)
	}
	hijacked, err := conn.Hijack()
	if err != nil {
		return nil, fmt.Errorf("taking over the replication connection: %w", err)
	}
	s.conn, s.frontend = hijacked.Conn, hijacked.Frontend
	s.reader.arm(s.conn, 3*s.interval+5*time.Second)
	s.frontier = NewFrontier(s.system.ConfirmedFlush, cfg.Window)
	s.reported.Store(uint64(s.system.ConfirmedFlush))
	go s.sendStatus()
	return s, nil
}

// Settings are what a session needs so that it writes values in the one way
// that the decoder reads, whatever the role's or database's settings.
func Settings() map[string]string {
	return map[string]string{
		"client_encoding":    "UTF8",
		"datestyle":          "ISO",
		"intervalstyle":      "postgres",
		"timezone":           "UTC",
		"extra_float_digits": "3",
		"bytea_output":       "hex",
		"row_security":       "off",
		"statement_timeout":  "0",
	}
}

// configure returns how to open a replication connection.
func configure(cfg Config) (*pgconn.Config, error) {
	config, err := pgconn.ParseConfig(cfg.ConnString)
	if err != nil {
		return nil, &problem.Problem{ID: "postgres_url", What: "postgres.url cannot be read", Fix: "correct postgres.url", Err: err}
	}
	if cfg.Password != "" {
		config.Password = cfg.Password
	}
	params := config.RuntimeParams
	if _, err := pgparam.Clean(params); err != nil {
		return nil, &problem.Problem{ID: "postgres_url", What: "postgres.url cannot be used", Fix: "correct postgres.url", Err: err}
	}
	if params["application_name"] == "" {
		params["application_name"] = "walrelay"
	}
	maps.Copy(params, Settings())
	params["replication"] = "database"
	return config, nil
}

// Identify asks the server what it is, and what the slot has confirmed. It
// leaves the slot alone.
func Identify(ctx context.Context, cfg Config) (system System, err error) {
	err = withConnection(ctx, cfg, func(conn *pgconn.PgConn) (err error) {
		if system, err = identify(ctx, conn); err == nil {
			system.ConfirmedFlush, _, err = readSlot(ctx, conn, cfg.Slot)
		}
		return err
	})
	return system, err
}

// SetFailover lets a slot fail over, for which there is no SQL function
// (https://www.postgresql.org/docs/17/protocol-replication.html, ALTER_REPLICATION_SLOT). It
// needs Postgres 17, and that nobody reads the slot.
func SetFailover(ctx context.Context, cfg Config) error {
	return withConnection(ctx, cfg, func(conn *pgconn.PgConn) error {
		if _, err := conn.Exec(ctx, `ALTER_REPLICATION_SLOT "`+cfg.Slot+`" (FAILOVER true)`).ReadAll(); err != nil {
			return fmt.Errorf("letting replication slot %q fail over: %w", cfg.Slot, err)
		}
		return nil
	})
}

// withConnection runs do on a replication connection of its own.
func withConnection(ctx context.Context, cfg Config, do func(conn *pgconn.PgConn) error) error {
	config, err := configure(cfg)
	if err != nil {
		return err
	}
	conn, err := pgconn.ConnectConfig(ctx, config)
	if err != nil {
		return classify(cfg.Slot, cfg.Publication, fmt.Errorf("connecting to Postgres for replication: %w", err))
	}
	return errors.Join(do(conn), conn.Close(context.WithoutCancel(ctx)))
}

func identify(ctx context.Context, conn *pgconn.PgConn) (System, error) {
	result, err := pglogrepl.IdentifySystem(ctx, conn)
	if err != nil {
		return System{}, fmt.Errorf("identifying the system: %w", err)
	}
	system := System{ID: result.SystemID, Timeline: result.Timeline}
	system.Ended, err = timelineHistory(ctx, conn, result.Timeline)
	return system, err
}

// connect opens the replication connection.
func (s *Stream) connect(ctx context.Context) (*pgconn.PgConn, error) {
	config, err := configure(s.cfg)
	if err != nil {
		return nil, err
	}
	config.BuildFrontend = func(r io.Reader, w io.Writer) *pgproto3.Frontend {
		s.reader.r = r
		s.buffer = bufio.NewReaderSize(s.reader, readBuffer)
		return pgproto3.NewFrontend(s.buffer, w)
	}
	return pgconn.ConnectConfig(ctx, config)
}

func (s *Stream) start(ctx context.Context, conn *pgconn.PgConn) error {
	var err error
	if s.system, err = identify(ctx, conn); err != nil {
		return err
	}
	timeout, err := queryValue(ctx, conn, "SELECT setting FROM pg_settings WHERE name = 'wal_sender_timeout'")
	if err != nil {
		return fmt.Errorf("reading wal_sender_timeout: %w", err)
	}
	s.interval = statusInterval(timeout)
	if s.system.Encoding, err = s.setEncoding(ctx, conn); err != nil {
		return err
	}

	args := []string{"proto_version '1'", "publication_names '" + quotePublication(s.cfg.Publication) + "'"}
	if s.cfg.Messages {
		args = append(args, "messages 'true'")
	}
	holder := ""
	for {
		var pid string
		if s.system.ConfirmedFlush, pid, err = readSlot(ctx, conn, s.cfg.Slot); err != nil {
			return err
		}
		// While another session has it, the server would log an error each time.
		if pid == "" {
			var started bool
			if started, pid, err = s.startReplication(ctx, conn, args); err != nil {
				return err
			}
			if started {
				break
			}
		}
		if s.cfg.OnBusy != nil && pid != holder {
			holder = pid
			s.cfg.OnBusy(pid)
		}
		jitter := rand.N(busyPoll / 4)
		select {
		case <-time.After(busyPoll - jitter):
		case <-ctx.Done():
			return fmt.Errorf("waiting for slot %q: %w", s.cfg.Slot, context.Cause(ctx))
		}
	}
	return nil
}

// startReplication begins, unless another process has the slot: holder is its number, if the
// server's message is understood.
func (s *Stream) startReplication(ctx context.Context, conn *pgconn.PgConn, args []string) (started bool, holder string, err error) {
	// From 0/0 the server begins at what the slot has confirmed. Any LSN of
	// ours above that would skip what lies between, silently.
	err = pglogrepl.StartReplication(ctx, conn, s.cfg.Slot, 0,
		pglogrepl.StartReplicationOptions{Mode: pglogrepl.LogicalReplication, PluginArgs: args})
	if err == nil {
		return true, "", nil
	}
	pgErr, ok := errors.AsType[*pgconn.PgError](err)
	if !ok || pgErr.Code != sqlstate.ObjectInUse {
		return false, "", fmt.Errorf("starting replication from slot %q: %w", s.cfg.Slot, err)
	}
	// StartReplication returns at the error; the session is usable again
	// after the ReadyForQuery that follows.
	if _, err := conn.ReceiveMessage(ctx); err != nil {
		return false, "", fmt.Errorf("waiting for slot %q: %w", s.cfg.Slot, err)
	}
	return false, busyPID(pgErr.Message), nil
}

// setEncoding decides in which encoding text arrives.
func (s *Stream) setEncoding(ctx context.Context, conn *pgconn.PgConn) (string, error) {
	const utf8 = "UTF8"
	encoding := conn.ParameterStatus("server_encoding")
	if encoding == utf8 || encoding == "" || s.cfg.Unconverted == nil || !s.cfg.Unconverted(encoding) {
		return utf8, nil
	}
	if _, err := conn.Exec(ctx, "SET client_encoding TO '"+encoding+"'").ReadAll(); err != nil {
		return "", fmt.Errorf("asking for text in the encoding %s: %w", encoding, err)
	}
	return encoding, nil
}

// Buffered reports whether something of the next message was read already, so
// that Receive will not wait for long. For the goroutine of Receive only.
func (s *Stream) Buffered() bool { return s.frontend.ReadBufferLen() > 0 || s.buffer.Buffered() > 0 }

// Age says how old what was received last is, by the server's clock. For the
// goroutine of Receive only. Behind a backlog, Receive waits a moment for more
// to read at once.
func (s *Stream) Age(age time.Duration) { s.pace.Late = age > late }

// System returns what the server said of itself when the stream was opened.
func (s *Stream) System() System { return s.system }

// Frontier returns the frontier of this stream.
func (s *Stream) Frontier() *Frontier { return s.frontier }

// Receive returns the next message. It blocks until there is one, until the
// connection fails, or until Interrupt or Close is called; a server that says
// nothing although it was asked for a reply counts as a failed connection.
// A *[problem.Problem] says that retrying is of no use.
func (s *Stream) Receive() (Message, error) {
	for {
		if !s.Buffered() {
			time.Sleep(s.pace.Next(time.Now()))
		}
		msg, err := s.frontend.Receive()
		if err != nil {
			return Message{}, fmt.Errorf("reading the replication stream: %w", err)
		}
		switch msg := msg.(type) {
		case *pgproto3.CopyData:
			s.pace.Count(1)
			return s.unwrap(msg.Data)
		case *pgproto3.NoticeResponse:
			if err := noticeError(s.cfg.Slot, msg); err != nil {
				return Message{}, err
			}
			if s.cfg.OnNotice != nil {
				s.cfg.OnNotice(msg.Message, msg.Detail, msg.Hint)
			}
		case *pgproto3.ErrorResponse:
			return Message{}, classify(s.cfg.Slot, s.cfg.Publication,
				fmt.Errorf("reading the replication stream: %w", pgconn.ErrorResponseToPgError(msg)))
		case *pgproto3.CopyDone, *pgproto3.CommandComplete, *pgproto3.ReadyForQuery:
			return Message{}, ErrServerStopping
		}
	}
}

// The first byte of the messages inside CopyData, and their lengths up to the
// payload (Postgres manual, "Streaming Replication Protocol").
const (
	xLogDataHeader  = 1 + 8 + 8 + 8
	keepaliveLength = 1 + 8 + 8 + 1
)

// unwrap reads the header of a message inside CopyData.
func (s *Stream) unwrap(data []byte) (Message, error) {
	if len(data) >= xLogDataHeader && data[0] == pglogrepl.XLogDataByteID {
		return Message{
			Data:       data[xLogDataHeader:],
			ServerTime: serverTime(data[17:]),
		}, nil
	}
	if len(data) >= keepaliveLength && data[0] == pglogrepl.PrimaryKeepaliveMessageByteID {
		m := Message{
			WALEnd:         LSN(binary.BigEndian.Uint64(data[1:])),
			ServerTime:     serverTime(data[9:]),
			ReplyRequested: data[17] != 0,
		}
		if m.ReplyRequested {
			now := time.Now()
			s.stopping = s.stopping || !s.lastRequest.IsZero() && now.Sub(s.lastRequest) < stoppingWithin
			s.lastRequest = now
			s.kickStatus()
		}
		m.ServerStopping = s.stopping
		return m, nil
	}
	first := byte(0)
	if len(data) > 0 {
		first = data[0]
	}
	return Message{}, fmt.Errorf("the server sent a replication message of %d bytes that begins with 0x%02x, which is neither data nor a keepalive", len(data), first)
}

// postgresEpoch is 2000-01-01 in microseconds of Unix time.
const postgresEpoch = 946_684_800_000_000

func serverTime(b []byte) time.Time {
	return time.UnixMicro(int64(binary.BigEndian.Uint64(b)) + postgresEpoch)
}

// noticeError turns the one notice that means lost events into an error:
// Postgres 18 goes on without a publication that it cannot load, and sends
// nothing of what was written meanwhile.
func noticeError(slot string, notice *pgproto3.NoticeResponse) error {
	// By code and source file, since words depend on lc_messages. Others have the code
	// too: a standby of synchronized_standby_slots that is away.
	if notice.Code == sqlstate.ObjectNotInPrerequisite && notice.File == "pgoutput.c" {
		return &problem.Problem{
			ID:   "slot_other",
			What: fmt.Sprintf("slot %q skips events: %s", slot, notice.Message),
			Fix:  "see docs/operations.md, \"A publication was dropped\"",
		}
	}
	return nil
}

// Report says that everything before lsn is settled and may be given up by
// the server, and sends it. An LSN below an earlier one changes nothing. One
// that this connection has not sent is refused: Postgres itself would accept
// it, and skip all that lies between.
func (s *Stream) Report(lsn LSN) error {
	if limit := s.frontier.LSN(); lsn > limit {
		return fmt.Errorf("refusing to report %s as flushed: events after %s are not settled", lsn, limit)
	}
	for {
		old := s.reported.Load()
		if uint64(lsn) <= old {
			return nil
		}
		if s.reported.CompareAndSwap(old, uint64(lsn)) {
			s.kickStatus()
			return nil
		}
	}
}

// Reported returns the LSN of the status updates.
func (s *Stream) Reported() LSN { return LSN(s.reported.Load()) }

func (s *Stream) kickStatus() {
	select {
	case s.kick <- struct{}{}:
	default:
	}
}

// sendStatus writes status updates: at a fixed cadence, when something is
// reported, and when the server asks. It ends at Close or at the first error,
// which it makes Receive see by closing the connection.
func (s *Stream) sendStatus() {
	defer close(s.ended)
	ticker := time.NewTicker(s.interval)
	defer ticker.Stop()
	for {
		if err := s.writeStatus(true); err != nil {
			s.sendErr = err
			s.reader.interrupt()
			return
		}
		pause := time.NewTimer(replySpacing)
		select {
		case <-pause.C:
		case <-s.quit:
		}
		pause.Stop()
		select {
		case <-ticker.C:
		case <-s.kick:
		case <-s.quit:
			return
		}
	}
}

// writeStatus writes one standby status update. Write, flush and apply are the
// same LSN: the server moves the slot by flush alone, and reads a synchronous
// standby's progress from all three.
func (s *Stream) writeStatus(requestReply bool) error {
	const length = 1 + 4 + 1 + 8 + 8 + 8 + 8 + 1
	var b [length]byte
	b[0] = 'd' // CopyData
	binary.BigEndian.PutUint32(b[1:], length-1)
	b[5] = pglogrepl.StandbyStatusUpdateByteID
	lsn := s.reported.Load()
	binary.BigEndian.PutUint64(b[6:], lsn)
	binary.BigEndian.PutUint64(b[14:], lsn)
	binary.BigEndian.PutUint64(b[22:], lsn)
	binary.BigEndian.PutUint64(b[30:], uint64(time.Now().UnixMicro()-postgresEpoch))
	if requestReply {
		b[38] = 1
	}
	if err := s.conn.SetWriteDeadline(time.Now().Add(3*s.interval + 5*time.Second)); err != nil {
		return fmt.Errorf("sending a standby status update: %w", err)
	}
	if _, err := s.conn.Write(b[:]); err != nil {
		return fmt.Errorf("sending a standby status update: %w", err)
	}
	return nil
}

// Idle reports whether a Receive waits for the server.
func (s *Stream) Idle() bool { return s.reader.isReading() }

// Discard is for when nobody has received for long, and nobody will soon: a
// server that cannot send cannot end the stream either, so that whoever wants
// it to (a shutdown, a checkpoint that gives up the slot, an administrator)
// would wait for us. It reads what the server sends and throws it away, while
// the status updates go on; a later Receive gets what was read before, and then
// an error. It blocks until the stream is interrupted or closed and then returns
// nil, or until the server has ended it and then returns why. If a Receive is
// under way it does nothing.
func (s *Stream) Discard() error {
	if err := s.reader.discard(); err != nil {
		return fmt.Errorf("the replication stream ended: %w", err)
	}
	return nil
}

// Interrupt makes a Receive that blocks, and every later one, return an error.
// Status updates go on. Safe for concurrent use.
func (s *Stream) Interrupt() { s.reader.interrupt() }

// Close sends a last status update, so that the slot keeps what was reported,
// ends the stream and waits for its goroutine. It blocks for at most grace.
// Nobody may be in Receive; call Interrupt first.
func (s *Stream) Close(grace time.Duration) error {
	var err error
	s.closing.Do(func() { err = s.close(grace) })
	return err
}

func (s *Stream) close(grace time.Duration) error {
	close(s.quit)
	s.reader.interrupt()
	if err := s.conn.SetWriteDeadline(time.Now().Add(grace)); err != nil {
		grace = 0
	}
	<-s.ended
	err := s.sendErr
	if err == nil {
		err = s.writeStatus(false)
	}
	if err == nil {
		// CopyDone ends the stream in order, and Terminate the session: the
		// server reads the status update before it lets go of the slot.
		if _, werr := s.conn.Write([]byte{'c', 0, 0, 0, 4, 'X', 0, 0, 0, 4}); werr != nil {
			err = fmt.Errorf("ending the replication stream: %w", werr)
		}
	}
	if err == nil && grace > 0 {
		s.reader.drain(grace)
	}
	if cerr := s.conn.Close(); err == nil && cerr != nil {
		err = fmt.Errorf("closing the replication connection: %w", cerr)
	}
	return err
}

// deadlineReader bounds each read from the connection, and can be interrupted.
// Deadlines of reading and writing are set apart, so that the two goroutines
// of the stream do not cut each other off.
type deadlineReader struct {
	r io.Reader

	mu          sync.Mutex
	conn        net.Conn // nil until armed
	timeout     time.Duration
	interrupted bool
	reading     bool // a Read is under way
	discarding  bool // everything is read and thrown away
}

var (
	errInterrupted = errors.New("the stream was interrupted")
	errDiscarded   = errors.New("what the server sent meanwhile was not kept, and is asked for again")
)

// arm gives every read from now on a timeout.
func (d *deadlineReader) arm(conn net.Conn, timeout time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.conn, d.timeout = conn, timeout
}

func (d *deadlineReader) Read(p []byte) (int, error) {
	d.mu.Lock()
	switch {
	case d.interrupted:
		d.mu.Unlock()
		return 0, errInterrupted
	case d.discarding:
		d.mu.Unlock()
		return 0, errDiscarded
	case d.conn != nil:
		if err := d.conn.SetReadDeadline(time.Now().Add(d.timeout)); err != nil {
			d.mu.Unlock()
			return 0, err
		}
	}
	d.reading = true
	d.mu.Unlock()
	n, err := d.r.Read(p)
	d.mu.Lock()
	d.reading = false
	d.mu.Unlock()
	return n, err
}

// isReading reports whether somebody waits for the server.
func (d *deadlineReader) isReading() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.reading
}

// discard reads and throws away until the connection ends or is interrupted. It
// does nothing if somebody reads.
func (d *deadlineReader) discard() error {
	d.mu.Lock()
	if d.reading || d.interrupted {
		d.mu.Unlock()
		return nil
	}
	d.discarding = true
	d.mu.Unlock()
	buf := make([]byte, readBuffer)
	for {
		d.mu.Lock()
		if d.interrupted {
			d.mu.Unlock()
			return nil
		}
		err := d.conn.SetReadDeadline(time.Now().Add(d.timeout))
		d.mu.Unlock()
		if err == nil {
			_, err = d.r.Read(buf)
		}
		if err != nil {
			d.mu.Lock()
			defer d.mu.Unlock()
			if d.interrupted {
				return nil
			}
			return err
		}
	}
}

func (d *deadlineReader) interrupt() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.interrupted = true
	if d.conn != nil {
		// An error means that the connection is gone, which ends reads too.
		_ = d.conn.SetReadDeadline(time.Unix(1, 0))
	}
}

// drain reads until the server has closed its side, for at most grace.
func (d *deadlineReader) drain(grace time.Duration) {
	if err := d.conn.SetReadDeadline(time.Now().Add(grace)); err == nil {
		_, _ = io.Copy(io.Discard, d.r)
	}
}

// statusInterval is a third of wal_sender_timeout (in milliseconds; 0 is
// none), and at most ten seconds.
func statusInterval(setting string) time.Duration {
	ms, err := strconv.ParseInt(setting, 10, 64)
	if err != nil || ms <= 0 {
		return maxStatusInterval
	}
	return min(maxStatusInterval, time.Duration(ms)*time.Millisecond/3)
}

// quotePublication quotes a publication's name as an identifier inside a
// literal.
func quotePublication(name string) string {
	name = `"` + strings.ReplaceAll(name, `"`, `""`) + `"`
	return strings.ReplaceAll(name, "'", "''")
}

// busyPID finds the process ID in "replication slot … is active for PID n".
func busyPID(message string) string {
	_, pid, _ := strings.Cut(message, "PID ")
	return strings.TrimSpace(pid)
}

// timelineHistory reads at which LSN each timeline before the present one
// ended (Postgres manual, TIMELINE_HISTORY). The first has no history file.
func timelineHistory(ctx context.Context, conn *pgconn.PgConn, timeline int32) (map[int32]LSN, error) {
	if timeline <= 1 {
		return map[int32]LSN{}, nil
	}
	history, err := pglogrepl.TimelineHistory(ctx, conn, timeline)
	if err != nil {
		return nil, fmt.Errorf("reading the history of timeline %d: %w", timeline, err)
	}
	ended := make(map[int32]LSN)
	for line := range strings.Lines(string(history.Content)) {
		fields := strings.Fields(line)
		if len(fields) < 2 || strings.HasPrefix(fields[0], "#") {
			continue
		}
		id, err := strconv.ParseInt(fields[0], 10, 32)
		if err != nil {
			return nil, fmt.Errorf("the history of timeline %d: %w", timeline, err)
		}
		end, err := pglogrepl.ParseLSN(fields[1])
		if err != nil {
			return nil, fmt.Errorf("the history of timeline %d: %w", timeline, err)
		}
		ended[int32(id)] = end
	}
	return ended, nil
}

// readSlot returns what a slot has confirmed, and the process that has it, if one does.
func readSlot(ctx context.Context, conn *pgconn.PgConn, slot string) (confirmed LSN, holder string, err error) {
	// The simple protocol takes no parameters; slot names consist of letters,
	// digits and underscores, and anything else finds no slot.
	value, err := queryValue(ctx, conn, "SELECT coalesce(confirmed_flush_lsn, '0/0') || ' ' || coalesce(active_pid::text, '') FROM pg_replication_slots WHERE slot_name = '"+
		strings.ReplaceAll(slot, "'", "''")+"'")
	if err != nil {
		return 0, "", fmt.Errorf("reading the confirmed LSN of slot %q: %w", slot, err)
	}
	if value == "" {
		return 0, "", nil // no such slot: START_REPLICATION says so
	}
	value, holder, _ = strings.Cut(value, " ")
	if confirmed, err = pglogrepl.ParseLSN(value); err != nil {
		return 0, "", fmt.Errorf("reading the confirmed LSN of slot %q: %w", slot, err)
	}
	return confirmed, holder, nil
}

// queryValue returns the one value of the one row of a query, "" without one.
func queryValue(ctx context.Context, conn *pgconn.PgConn, sql string) (string, error) {
	results, err := conn.Exec(ctx, sql).ReadAll()
	if err != nil {
		return "", err
	}
	if len(results) != 1 || len(results[0].Rows) != 1 {
		return "", nil
	}
	return string(results[0].Rows[0][0]), nil
}
