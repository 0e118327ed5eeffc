"""A case of the plant through the real pipeline, in plant time: driver, sealer, log, ledger, figures, alerts.

Nothing is faked but the clock and the wire: the Modbus driver asks the plant's devices in this process, and log
messages go from the sealer to the ledger without a broker. A day takes seconds.
"""
