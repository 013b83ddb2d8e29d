"""The service that stores artifacts and gives them to whoever may read them."""
