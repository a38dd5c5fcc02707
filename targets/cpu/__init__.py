"""Lowering for CPUs: kernel templates over register tiles, written directly as TIR loops."""
