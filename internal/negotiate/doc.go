// Package negotiate chooses the media type of a response from an Accept header, as RFC
// 9110, section 12.5.1 describes. It knows nothing of HTTP handlers.
package negotiate
