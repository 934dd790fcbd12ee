package transport

import (
	"bytes"
	"sync"
)

// maxPooledBuffer is the capacity, in bytes, above which a buffer is not reused.
const maxPooledBuffer = 64 << 10

var bufferPool = sync.Pool{New: func() any { return new(bytes.Buffer) }} //nolint:gochecknoglobals // a pool must be shared

func getBuffer() *bytes.Buffer {
	buffer, ok := bufferPool.Get().(*bytes.Buffer)
	if !ok {
		return new(bytes.Buffer)
	}
	return buffer
}

func putBuffer(buffer *bytes.Buffer) {
	if buffer.Cap() > maxPooledBuffer {
		return
	}
	buffer.Reset()
	bufferPool.Put(buffer)
}
