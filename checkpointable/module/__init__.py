"""What users subclass: the module that only needs compute_loss, and the mixin for modules that have their own steps."""
