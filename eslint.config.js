// Only what types cannot say: promises that nobody awaits, and a few words that hide mistakes.
// Layout, width and imports are rules of test/house.ts.
import tseslint from 'typescript-eslint'

export default tseslint.config(
  { ignores: ['node_modules/**', 'coverage/**', 'data/**', 'demo-data/**', 'tmp/**', 'bin/**', 'eslint.config.js'] },
  {
    files: ['**/*.ts'],
    languageOptions: {
      parser: tseslint.parser,
      parserOptions: {
        // Named, not looked up for each file (`projectService`), which takes a quarter more CPU.
        project: ['tsconfig.json', 'src/console/tsconfig.json'], tsconfigRootDir: import.meta.dirname
      }
    },
    plugins: { '@typescript-eslint': tseslint.plugin },
    rules: {
      '@typescript-eslint/no-floating-promises': 'error',
      '@typescript-eslint/no-misused-promises': ['error', { checksVoidReturn: { arguments: false } }],
      '@typescript-eslint/await-thenable': 'error',
      '@typescript-eslint/no-explicit-any': 'error',
      '@typescript-eslint/only-throw-error': 'error',
      'no-restricted-properties': ['error', { object: 'Math', property: 'random', message: 'use node:crypto' }],
      'no-debugger': 'error',
      'no-eval': 'error',
      'prefer-const': 'error',
      eqeqeq: 'error'
    }
  }
)
