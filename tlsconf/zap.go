package tlsconf

import (
	"context"
	"log/slog"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// libraryLog lets the ACME library, which knows only zap, write to our log. Its successes are details here: the outcome of an order is
// logged by us, once.
type libraryLog struct {
	log    *slog.Logger
	fields []zapcore.Field
}

func newLibraryLog(log *slog.Logger) *zap.Logger { return zap.New(libraryLog{log: log}) }

func slogLevel(l zapcore.Level) slog.Level {
	if l >= zapcore.WarnLevel {
		return slog.LevelInfo
	}
	return slog.LevelDebug
}

// Enabled implements zapcore.Core, as the others do.
func (l libraryLog) Enabled(level zapcore.Level) bool {
	return l.log.Enabled(context.TODO(), slogLevel(level)) // zap has no context to give
}

// With adds fields to all lines.
func (l libraryLog) With(fields []zapcore.Field) zapcore.Core {
	return libraryLog{l.log, append(l.fields[:len(l.fields):len(l.fields)], fields...)}
}

// Check asks for a line to be written.
func (l libraryLog) Check(e zapcore.Entry, checked *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if l.Enabled(e.Level) {
		return checked.AddCore(e, l)
	}
	return checked
}

// Write writes a line.
func (l libraryLog) Write(e zapcore.Entry, fields []zapcore.Field) error {
	values := zapcore.NewMapObjectEncoder()
	for _, f := range append(l.fields[:len(l.fields):len(l.fields)], fields...) {
		f.AddTo(values)
	}
	attributes := make([]any, 0, 2+len(values.Fields))
	for key, value := range values.Fields {
		attributes = append(attributes, slog.Any(key, value))
	}
	l.log.Log(context.TODO(), slogLevel(e.Level), "acme: "+e.Message, attributes...)
	return nil
}

// Sync does nothing: our log has no buffer.
func (l libraryLog) Sync() error { return nil }
