// A process to be profiled by the end-to-end tests: net/http/pprof as every Go program has it, and work that a profile must
// show by name. Each profile that was asked for is one line on stdout ("served heap"), so that a test can count from the
// target's side how often it was disturbed.
package main

import (
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"flag"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net/http"
	_ "net/http/pprof"
	"os"
	"runtime"
	"strings"
	"time"
)

const mib = 1 << 20

var kept [][]byte

//go:noinline
func burnCPUHere(sink *uint64) {
	for i := uint64(1); i < 50_000_000; i++ {
		*sink = *sink*6364136223846793005 + i
	}
}

//go:noinline
func leakMemoryHere(bytes int) {
	chunk := make([]byte, bytes)
	for i := 0; i < len(chunk); i += 4096 {
		chunk[i] = 1 // touched, so that it counts as resident
	}
	kept = append(kept, chunk)
}

func leak(rate, most int) {
	for total := 0; total < most; total += rate {
		leakMemoryHere(rate * mib)
		time.Sleep(time.Second)
	}
}

// incompressible serves a valid gzip file of about size bytes of seeded noise in place of the heap profile. Its digest is on
// stdout afterwards: "sent BYTES SHA256".
func incompressible(size int64) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/octet-stream")
		digest := sha256.New()
		counted := &counter{to: io.MultiWriter(w, digest)}
		packed, _ := gzip.NewWriterLevel(counted, gzip.NoCompression)
		noise := rand.NewChaCha8([32]byte{1})
		if _, err := io.CopyN(packed, noise, size); err != nil {
			fmt.Println("broken after", counted.bytes, err)
			return
		}
		if err := packed.Close(); err != nil {
			fmt.Println("broken at the end", err)
			return
		}
		fmt.Println("sent", counted.bytes, hex.EncodeToString(digest.Sum(nil)))
	}
}

type counter struct {
	to    io.Writer
	bytes int64
}

func (c *counter) Write(p []byte) (int, error) {
	n, err := c.to.Write(p)
	c.bytes += int64(n)
	return n, err
}

func main() {
	listen := flag.String("listen", ":6060", "address of the pprof server")
	burn := flag.Int("burn", 0, "goroutines that burn CPU")
	leakRate := flag.Int("leak", 0, "MiB to leak a second")
	leakMost := flag.Int("leak-most", 64, "MiB after which leaking stops")
	heapBytes := flag.Int64("heap-bytes", 0, "serve this many bytes of noise as the heap profile")
	without := flag.String("without", "", "a profile that this process does not have")
	flag.Parse()
	runtime.MemProfileRate = 64 << 10
	runtime.SetMutexProfileFraction(10)

	for range make([]struct{}, *burn) {
		go func() {
			var sink uint64
			for {
				burnCPUHere(&sink)
			}
		}()
	}
	if *leakRate > 0 {
		go leak(*leakRate, *leakMost)
	}
	mux := http.NewServeMux()
	mux.Handle("/debug/pprof/", http.DefaultServeMux)
	if *heapBytes > 0 {
		mux.Handle("/debug/pprof/heap", incompressible(*heapBytes))
	}
	if *without != "" {
		mux.Handle("/debug/pprof/"+*without, http.NotFoundHandler())
	}
	counting := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Println("served", strings.TrimPrefix(r.URL.Path, "/debug/pprof/"))
		mux.ServeHTTP(w, r)
	})
	fmt.Println("ready", os.Args[1:])
	log.Fatal(http.ListenAndServe(*listen, counting))
}
