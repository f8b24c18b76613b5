package main

import "context"

func benchGrowth(context.Context, *bench) error    { return nil }
func benchDelivery(context.Context, *bench) error  { return nil }
func benchSustained(context.Context, *bench) error { return nil }
