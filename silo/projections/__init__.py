"""What follows from what happened: one module an index, each a pure fold of the log.

A module declares its tables, has one short function per event that it hears of, named as the event, and ends with `FOLDS`,
its table of contents.  A table is written only by the module that declares it, and may be read by any.

Knows: domain, events.  Does not know: storage, commands, the clock, chance.
"""
