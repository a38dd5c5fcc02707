def create(spec, steps):
    raise NotImplementedError
