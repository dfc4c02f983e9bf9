"""The tests' run-time type checker: beartype, with ints taken for floats as PEP 484 has it."""

from beartype import BeartypeConf, beartype

checked = beartype(conf=BeartypeConf(is_pep484_tower=True))
