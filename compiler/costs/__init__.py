"""What programs cost on a target: predicted from its profile, measured on this machine, or priced by a hardware model.

Each source takes a program as a pass has it, before the pipeline.
"""
