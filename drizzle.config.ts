// Migrations are generated from the schema and read before they are committed.
import { defineConfig } from 'drizzle-kit'

export default defineConfig({ dialect: 'postgresql', schema: './src/store/schema*.ts', out: './migrations' })
