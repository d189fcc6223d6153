package event

import "strings"

// PatternsOverlap reports whether a subject exists that both patterns match (NATS manual,
// "Subject-Based Messaging", wildcards).
func PatternsOverlap(a, b string) bool {
	for {
		x, restX, moreX := strings.Cut(a, ".")
		y, restY, moreY := strings.Cut(b, ".")
		switch {
		case x == ">" || y == ">":
			return true
		case x != "*" && y != "*" && x != y:
			return false
		case !moreX || !moreY:
			return moreX == moreY
		}
		a, b = restX, restY
	}
}

// PatternCovers reports whether every subject that narrow matches, or that it is, is
// matched by wide too.
func PatternCovers(wide, narrow string) bool {
	for {
		w, restW, moreW := strings.Cut(wide, ".")
		if w == ">" {
			return true
		}
		n, restN, moreN := strings.Cut(narrow, ".")
		if n == ">" || w != "*" && w != n {
			return false
		}
		if !moreW || !moreN {
			return moreW == moreN
		}
		wide, narrow = restW, restN
	}
}
