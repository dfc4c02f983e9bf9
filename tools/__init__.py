"""What the developer's commands share with the tests. Nothing here is installed or published."""
