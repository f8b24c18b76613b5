// Package people logs people in, and knows of them what their tokens do not say.
package people
