class Validation:
    def __init__(self, config, vae):
        pass
