package main

import (
	"strings"

	"github.com/postroom/postroom/internal/config"
)

type configCommand struct {
	Check configCheck `cmd:"" help:"Say what is wrong in the configuration file, with line and key."`
	Print configPrint `cmd:"" help:"Print the configuration with all keys and their values."`
}

type configCheck struct{}

// Run only looks at the file: whether the ports are free, and the database in order, is found out by serve.
func (configCheck) Run(p *program) error {
	c, err := p.load()
	if err != nil {
		return err
	}
	for _, note := range c.Notes() {
		p.say("note: %s", note)
	}
	p.say("%s is in order.", p.configFile)
	return nil
}

type configPrint struct{}

func (configPrint) Run(p *program) error {
	c, err := p.load()
	if err != nil {
		return err
	}
	return c.Print(p.stdout)
}

// load reads the configuration file.
func (p *program) load() (*config.Config, error) {
	c, err := config.Load(p.configFile)
	if err != nil {
		return nil, &failure{statusConfig, strings.TrimSpace(err.Error())}
	}
	return c, nil
}
