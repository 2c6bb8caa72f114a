"""Devices: what runs a plan. `contract` says what each of them promises."""
