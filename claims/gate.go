package claims

import "sync"

// A gate bounds what is held at one time for callers who have proven nothing
// yet: how many they are, and how large their tokens are together.
type gate struct {
	places int // how many may be inside
	room   int // for how many bytes of tokens

	mu     sync.Mutex
	inside int
	size   int
}

// enter reports whether there is a place, and room for a token of size bytes;
// if so, leave must follow.
func (g *gate) enter(size int) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.inside == g.places || size > g.room-g.size {
		return false
	}
	g.inside++
	g.size += size
	return true
}

func (g *gate) leave(size int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.inside--
	g.size -= size
}

// len is how many are inside.
func (g *gate) len() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.inside
}
