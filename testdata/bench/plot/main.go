// Command plot draws the charts of the benchmarks' results: one PNG for each, beside
// the JSON file that it is given.
package main

import (
	"encoding/json"
	"fmt"
	"image/color"
	"os"
	"path/filepath"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
)

// chart is drawn as groups of bars side by side.
type chart struct {
	File   string   `json:"file"`
	Title  string   `json:"title"`
	YLabel string   `json:"y_label"`
	Groups []string `json:"groups"`
	Series []struct {
		Name   string    `json:"name"`
		Values []float64 `json:"values"`
	} `json:"series"`
}

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: plot RESULTS.json")
		os.Exit(2)
	}
	if err := run(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "plot:", err)
		os.Exit(1)
	}
}

func run(path string) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var results struct {
		Charts []chart `json:"charts"`
	}
	if err := json.Unmarshal(text, &results); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	for _, c := range results.Charts {
		if err := c.draw(filepath.Join(filepath.Dir(path), filepath.Base(c.File))); err != nil {
			return fmt.Errorf("%s: %w", c.File, err)
		}
	}
	return nil
}

// palette is told apart by readers who do not see red and green alike.
var palette = []color.Color{
	color.RGBA{R: 0x00, G: 0x72, B: 0xb2, A: 0xff},
	color.RGBA{R: 0xe6, G: 0x9f, B: 0x00, A: 0xff},
	color.RGBA{R: 0x00, G: 0x9e, B: 0x73, A: 0xff},
	color.RGBA{R: 0xcc, G: 0x79, B: 0xa7, A: 0xff},
	color.RGBA{R: 0x56, G: 0xb4, B: 0xe9, A: 0xff},
	color.RGBA{R: 0x99, G: 0x99, B: 0x99, A: 0xff},
}

func (c *chart) draw(path string) error {
	p := plot.New()
	p.Title.Text = c.Title
	p.Y.Label.Text = c.YLabel
	p.Y.Min = 0
	p.BackgroundColor = color.White
	p.NominalX(c.Groups...)
	p.X.Min, p.X.Max = -0.6, float64(len(c.Groups))-0.4 // whole bars at both ends
	p.Add(plotter.NewGrid())
	p.Legend.Top = true
	p.Legend.Padding = vg.Points(3)

	width := vg.Points(72 / float64(len(c.Series)))
	highest := 0.0
	for i, s := range c.Series {
		bars, err := plotter.NewBarChart(plotter.Values(s.Values), width)
		if err != nil {
			return err
		}
		bars.Color = palette[i%len(palette)]
		bars.LineStyle.Width = 0
		bars.Offset = width * vg.Length(float64(i)-float64(len(c.Series)-1)/2)
		p.Add(bars)
		p.Legend.Add(s.Name, bars)
		for _, value := range s.Values {
			highest = max(highest, value)
		}
	}
	p.Y.Max = highest * (1.1 + 0.05*float64(len(c.Series))) // room for the legend
	return p.Save(vg.Points(float64(len(c.Groups))*120+160), vg.Points(360), path)
}
