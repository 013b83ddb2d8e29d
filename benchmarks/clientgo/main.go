// Command clientgo is the baseline of benchmarks/informer.py: client-go's shared informer over all pods of one server.
//
// It speaks the same few lines as the other clients of that benchmark: it prints "ready", waits for a line, syncs,
// prints "synced SECONDS", and after the given number of further events prints "storm SECONDS".
package main

import (
	"bufio"
	"flag"
	"fmt"
	"os"
	"runtime/debug"
	"strconv"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
)

func main() {
	strip := flag.Bool("strip", false, "drop managedFields, the usual remedy")
	flag.Parse()
	server := flag.Arg(0)
	wanted, err := strconv.ParseInt(flag.Arg(1), 10, 64)
	must(err)
	client, err := kubernetes.NewForConfig(&rest.Config{
		Host:          server,
		QPS:           -1,
		ContentConfig: rest.ContentConfig{ContentType: "application/json", AcceptContentTypes: "application/json"},
	})
	must(err)
	factory := informers.NewSharedInformerFactory(client, 0)
	informer := factory.Core().V1().Pods().Informer()
	if *strip {
		must(informer.SetTransform(func(obj any) (any, error) {
			if pod, ok := obj.(*corev1.Pod); ok {
				pod.ManagedFields = nil
			}
			return obj, nil
		}))
	}

	var seen atomic.Int64
	var first time.Time
	done := make(chan time.Duration, 1)
	_, err = informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		UpdateFunc: func(_, _ any) {
			switch count := seen.Add(1); count {
			case 1:
				first = time.Now()
			case wanted:
				done <- time.Since(first)
			}
		},
	})
	must(err)

	fmt.Println("ready")
	_, err = bufio.NewReader(os.Stdin).ReadString('\n')
	must(err)
	begin := time.Now()
	stop := make(chan struct{})
	factory.Start(stop)
	cache.WaitForCacheSync(stop, informer.HasSynced)
	took := time.Since(begin)
	// What the collector has not yet given back is not what the cache costs.
	debug.FreeOSMemory()
	if pod, ok := informer.GetStore().List()[0].(*corev1.Pod); !ok || pod.Name == "" {
		panic("the store holds no pods")
	}
	fmt.Printf("synced %.6f\n", took.Seconds())
	fmt.Printf("storm %.6f\n", (<-done).Seconds())
	select {}
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}
